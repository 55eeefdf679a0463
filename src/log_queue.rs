//! Passes log lines to a thread that writes them, so that a slow reader of the log blocks no other thread.

use std::io::{self, Write};
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The maximum size in bytes of the lines that wait to be written. The writing thread may hold the same amount again.
const LIMIT_BYTES: usize = 1 << 20;

/// A bounded queue of lines and the thread that writes them. When the queue is full, further lines are dropped and
/// counted.
#[derive(Clone)]
pub struct LogQueue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when lines are added and when they have been written.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Complete lines.
    waiting: Vec<u8>,
    is_writing: bool,
    dropped: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogQueue {
    /// Starts a thread that writes to `stream` and drops lines that cannot be written. After lines were dropped because
    /// the queue was full, the thread calls `report_dropped` with their number as soon as the stream accepts lines
    /// again.
    ///
    /// # Errors
    /// Fails when the thread cannot be started.
    pub fn start(
        stream: impl Write + Send + 'static,
        report_dropped: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let queue = Self { shared: Arc::clone(&shared) };
        let write = move || write_lines(&shared, stream, report_dropped);
        thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(queue)
    }

    /// Waits until all lines are written, for at most `timeout`.
    pub fn flush_within(&self, timeout: Duration) {
        let is_behind = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), timeout, is_behind);
        drop(waited);
    }
}

impl Write for LogQueue {
    /// Queues a complete line. Never blocks on the stream.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        if state.waiting.len() + line.len() > LIMIT_BYTES {
            state.dropped += 1;
        } else {
            state.waiting.extend_from_slice(line);
            self.shared.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(shared: &Shared, mut stream: impl Write, report_dropped: impl Fn(u64)) {
    loop {
        let waited = shared.changed.wait_while(shared.lock(), |state| state.waiting.is_empty());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let lines = take(&mut state.waiting);
        state.is_writing = true;
        drop(state);
        // A failing log must not end a role.
        let _ = stream.write_all(&lines).and_then(|()| stream.flush());
        let dropped = take(&mut shared.lock().dropped);
        if dropped > 0 {
            report_dropped(dropped);
        }
        shared.lock().is_writing = false;
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    /// A stream that accepts one write per permit.
    struct Slow {
        permits: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.written.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow_queue() -> (LogQueue, Sender<()>, Receiver<Vec<u8>>, Receiver<u64>) {
        let (permit, permits) = channel();
        let (written, lines) = channel();
        let (report, reports) = channel();
        let queue =
            LogQueue::start(Slow { permits, written }, move |dropped| report.send(dropped).unwrap()).unwrap();
        (queue, permit, lines, reports)
    }

    #[test]
    fn lines_that_are_not_read_are_dropped_and_counted_once() {
        let (mut queue, permit, lines, reports) = slow_queue();
        let line = [vec![b'x'; 999], b"\n".to_vec()].concat();
        // The thread holds the first line and waits for a permit.
        queue.write_all(&line).unwrap();
        permit.send(()).unwrap();
        assert_eq!(lines.recv_timeout(DEADLINE).unwrap(), line);
        let offered = 10 * LIMIT_BYTES / line.len();
        for _ in 0..offered {
            queue.write_all(&line).unwrap();
        }
        assert!(queue.shared.lock().waiting.len() <= LIMIT_BYTES);
        // The lines arrive in one or two batches.
        for _ in 0..2 {
            permit.send(()).unwrap();
        }
        let dropped = reports.recv_timeout(DEADLINE).unwrap();
        queue.flush_within(DEADLINE);
        let written: usize = lines.try_iter().map(|bytes| bytes.len() / line.len()).sum();
        assert_eq!(written as u64 + dropped, offered as u64);
        assert!(reports.try_recv().is_err(), "dropped lines are reported once");
    }

    #[test]
    fn a_failing_stream_does_not_end_the_thread() {
        let (mut queue, permit, lines, _) = slow_queue();
        drop((permit, lines));
        for _ in 0..3 {
            queue.write_all(b"line\n").unwrap();
            queue.flush_within(DEADLINE);
        }
    }
}
