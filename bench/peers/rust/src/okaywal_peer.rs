//! okaywal: an entry for each put, a chunk for each record.
//!
//! Options: files of 64 MiB and a checkpoint at 48 MiB in place of 1 MiB and 768 KiB. The page of
//! `Configuration::preallocate_bytes` calls a large file better, and the README says that
//! preallocating is critical; the other peers have files of that size too. `commit` returns after
//! an fdatasync that threads share (README, "Multi-Threaded Writing"). Checkpoints keep nothing.

use crate::store::{record, Outcome, Store};
use okaywal::{Configuration, LogVoid, WriteAheadLog};
use std::path::Path;

const FILE_BYTES: u32 = 64 << 20;
const CHECKPOINT_BYTES: u64 = 48 << 20;

pub struct Okaywal {
    log: WriteAheadLog,
    record: Vec<u8>,
}

impl Okaywal {
    pub fn open(directory: &Path) -> Outcome<Self> {
        let configuration = Configuration::default_for(directory)
            .preallocate_bytes(FILE_BYTES)
            .checkpoint_after_bytes(CHECKPOINT_BYTES);
        Ok(Self { log: configuration.open(LogVoid)?, record: record() })
    }
}

impl Store for Okaywal {
    fn put(&self, _thread: usize) -> Outcome<()> {
        self.put_many(1)
    }

    fn put_many(&self, records: usize) -> Outcome<()> {
        let mut entry = self.log.begin_entry()?;
        for _ in 0..records {
            entry.write_chunk(&self.record)?;
        }
        entry.commit()?;
        Ok(())
    }
}
