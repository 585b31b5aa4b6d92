//! Partitions on disk: append, read, recover. Layers, each knowing only what is below it: [`partition`] (high watermark,
//! waiters) over [`log`] (ordered segments, one writer) over `segment` (one base offset, its files and indexes) over
//! [`crate::storage`].

pub mod config;
