//! Ctrl-C, for commands that have something to put in order before they end.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

/// What a shell expects of who ends by a Ctrl-C: 128 and the signal's number.
const INTERRUPTED: i32 = 130;

/// What comes so soon after the first signal is the same one: wrappers such as `timeout` send it to the process and to its
/// group.
const ECHO: Duration = Duration::from_millis(200);

/// Whether the user has asked to stop; never, by default. Cheap to clone.
#[derive(Clone, Default, Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the first SIGINT or SIGTERM only sets this; the second ends the process at once.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn listen() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut first, mut second) = {
            let _entered = runtime.enter();
            (Signals::listen()?, Signals::listen()?)
        };
        let seen = asked.clone();
        let wait = async move {
            first.next().await;
            seen.store(true, Ordering::Release);
            sleep(ECHO).await;
            second.forget();
            second.next().await;
            process::exit(INTERRUPTED);
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait))?;
        Ok(Self(asked))
    }

    /// Whether it has come.
    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The signals that ask to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Forgets what has come so far.
    fn forget(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while self.interrupt.poll_recv(&mut cx).is_ready() {}
        while self.terminate.poll_recv(&mut cx).is_ready() {}
    }
}
