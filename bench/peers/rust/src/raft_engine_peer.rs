//! raft-engine: each thread appends to a Raft group of its own, as the stores of TiKV do.
//!
//! Options: the defaults (`raft_engine::Config`), which recycle files and use format version 2, but
//! for compression, which is off since the records do not compress. `Engine::write` with `sync`
//! returns after an fdatasync, which the threads that wait share. Entries are made and compacted
//! away (`compact_to`, `purge_expired_files`) as the crate's example does.

use crate::store::{record, Outcome, Store, RECORD_BYTES};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const GROUPS_MAX: usize = 256;
const INDEX_BYTES: usize = 8;

/// A message whose first bytes are its index.
#[derive(Clone)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let mut bytes = [0; INDEX_BYTES];
        bytes.copy_from_slice(&entry.value[..INDEX_BYTES]);
        u64::from_be_bytes(bytes)
    }
}

pub struct RaftEngine {
    engine: Engine,
    record: Vec<u8>,
    /// The last index of each group; one thread writes to a group.
    last: Vec<AtomicU64>,
}

impl RaftEngine {
    pub fn open(directory: &Path) -> Outcome<Self> {
        let engine = Engine::open(Config {
            dir: directory.to_str().ok_or("the directory's name is not UTF-8")?.to_owned(),
            batch_compression_threshold: ReadableSize::kb(0),
            ..Default::default()
        })?;
        let last = (0..GROUPS_MAX).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { engine, record: record(), last })
    }

    fn append(&self, group: usize, records: usize) -> Outcome<()> {
        let first = self.last[group].load(Ordering::Relaxed) + 1;
        let entries: Vec<BytesValue> = (first..).take(records).map(|at| self.entry(at)).collect();
        let mut batch = LogBatch::with_capacity(1);
        batch.add_entries::<Indexed>(group as u64 + 1, &entries)?;
        self.engine.write(&mut batch, true)?;
        self.last[group].fetch_add(records as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Returns a message of the size of a record.
    fn entry(&self, index: u64) -> BytesValue {
        let mut value = Vec::with_capacity(RECORD_BYTES);
        value.extend_from_slice(&index.to_be_bytes());
        value.extend_from_slice(&self.record[INDEX_BYTES..]);
        let mut entry = BytesValue::new();
        entry.value = value;
        entry
    }
}

impl Store for RaftEngine {
    fn put(&self, thread: usize) -> Outcome<()> {
        self.append(thread, 1)
    }

    fn put_many(&self, records: usize) -> Outcome<()> {
        self.append(0, records)
    }

    fn trim(&self) {
        for (group, last) in self.last.iter().enumerate() {
            self.engine.compact_to(group as u64 + 1, last.load(Ordering::Relaxed));
        }
        if let Err(error) = self.engine.purge_expired_files() {
            eprintln!("raft-engine: purging: {error}");
        }
    }
}
