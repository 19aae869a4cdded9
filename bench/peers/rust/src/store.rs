//! What a peer has to do, and the loops that time it.

use std::error::Error;
use std::time::Instant;

pub const RECORD_BYTES: usize = 256;

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// When a slice of work ends: whichever comes first.
#[derive(Clone, Copy)]
pub struct Limits {
    pub deadline: Instant,
    pub count_max: usize,
}

pub trait Store: Sync {
    /// Makes one record durable; `thread` is the caller's number.
    fn put(&self, thread: usize) -> Outcome<()>;

    /// Makes so many records durable together.
    fn put_many(&self, records: usize) -> Outcome<()>;

    /// Drops what is there, if that is cheap.
    fn trim(&self) {}

    /// Puts from so many threads; returns how long each put took, in nanoseconds.
    fn puts(&self, concurrency: usize, limits: Limits) -> Outcome<Vec<u64>> {
        let run = |thread| {
            durations_until(limits, || self.put(thread)).map_err(|error| error.to_string())
        };
        let taken: Vec<Result<Vec<u64>, String>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..concurrency).map(|thread| scope.spawn(move || run(thread))).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|result| result.unwrap_or(Err("a thread panicked".into()))).collect()
        });
        let mut all = Vec::new();
        for durations in taken {
            all.extend(durations?);
        }
        Ok(all)
    }
}

/// Returns a record that does not compress.
pub fn record() -> Vec<u8> {
    let mut state: u64 = 1;
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    while bytes.len() < RECORD_BYTES {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        bytes.extend_from_slice(&(state >> 32).to_le_bytes()[..4]);
    }
    bytes
}

/// Does one after the other; returns how long each took, in nanoseconds.
pub fn durations_until(
    limits: Limits,
    mut work: impl FnMut() -> Outcome<()>,
) -> Outcome<Vec<u64>> {
    let mut took = Vec::new();
    let mut begin = Instant::now();
    while begin < limits.deadline && took.len() < limits.count_max {
        work()?;
        let end = Instant::now();
        took.push(u64::try_from((end - begin).as_nanos())?);
        begin = end;
    }
    Ok(took)
}
