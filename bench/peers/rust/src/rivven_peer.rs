//! rivven-core: the group commit log of the broker, called from tasks.
//!
//! Options: `WalConfig::durable()`, which syncs with fdatasync, with the group commit window of
//! `WalConfig::low_latency()`, 50 microseconds in place of 200 (documentation of both). A group is
//! written when its window has passed without a new record, or at 1,000 records; the runtime's
//! timer ticks once in a millisecond.

use crate::store::{record, Limits, Outcome, Store};
use bytes::Bytes;
use rivven_core::wal::{GroupCommitWal, WalConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Runtime;

pub struct Rivven {
    runtime: Runtime,
    log: Arc<GroupCommitWal>,
    record: Bytes,
}

impl Rivven {
    pub fn open(directory: &Path) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let config = WalConfig {
            dir: directory.to_owned(),
            group_commit_window: WalConfig::low_latency().group_commit_window,
            ..WalConfig::durable()
        };
        let log = runtime.block_on(GroupCommitWal::new(config))?;
        Ok(Self { runtime, log, record: record().into() })
    }
}

impl Store for Rivven {
    fn put(&self, _thread: usize) -> Outcome<()> {
        self.runtime.block_on(self.log.write(self.record.clone()))?;
        Ok(())
    }

    fn put_many(&self, records: usize) -> Outcome<()> {
        let batch = vec![self.record.clone(); records];
        self.runtime.block_on(self.log.write_batch(batch))?;
        Ok(())
    }

    /// Tasks of the runtime in place of threads.
    fn puts(&self, concurrency: usize, limits: Limits) -> Outcome<Vec<u64>> {
        let tasks: Vec<_> = (0..concurrency)
            .map(|_| {
                let (log, record) = (self.log.clone(), self.record.clone());
                self.runtime.spawn(async move {
                    let mut took = Vec::new();
                    let mut begin = Instant::now();
                    while begin < limits.deadline && took.len() < limits.count_max {
                        log.write(record.clone()).await.map_err(|error| error.to_string())?;
                        let end = Instant::now();
                        took.push(u64::try_from((end - begin).as_nanos()).unwrap_or(u64::MAX));
                        begin = end;
                    }
                    Ok::<Vec<u64>, String>(took)
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(self.runtime.block_on(task)??);
        }
        Ok(all)
    }
}

impl Drop for Rivven {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.block_on(self.log.shutdown()) {
            eprintln!("rivven-core: shutdown: {error}");
        }
    }
}
