//! Any bytes are a change of the catalog or an error; a change reads back from its record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ottla::catalog::{CatalogState, Change};

fuzz_target!(|data: &[u8]| {
    if let Ok(change) = Change::from_record(data) {
        let (_, value) = change.to_record();
        assert_eq!(Change::from_record(&value).expect("our own record"), change);
        CatalogState::default().apply(&change);
    }
});
