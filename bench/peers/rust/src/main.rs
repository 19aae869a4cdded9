//! One Rust peer of the log, which runs a slice of work for each line that it reads.
//!
//! `walengine-bench-peers NAME` with NAME one of okaywal, raft-engine, rivven-core. The lines and
//! their answers are those of bench/serve.py: `open DIRECTORY`, `puts CONCURRENCY MILLISECONDS
//! MAX`, `batches RECORDS MILLISECONDS MAX`, `trim`, `close`. Everything that is put is synced when
//! the call returns; each peer's options stand in its file.

mod okaywal_peer;
mod raft_engine_peer;
mod rivven_peer;
mod store;

use serde_json::{json, Value};
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use store::{durations_until, Limits, Store};

type Answer = Result<Value, Box<dyn Error>>;

const LOCK_FILE: &str = include_str!("../Cargo.lock");

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    let mut store: Option<Box<dyn Store>> = None;
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = run(&name, &mut store, &words)
            .unwrap_or_else(|error| json!({ "failed": error.to_string() }));
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn run(name: &str, store: &mut Option<Box<dyn Store>>, words: &[&str]) -> Answer {
    match (words, store) {
        (["open", directory], slot) => {
            let begin = Instant::now();
            *slot = Some(open(name, Path::new(directory))?);
            Ok(json!({ "wall_ns": nanoseconds(begin.elapsed()), "version": version(name) }))
        }
        (["puts", concurrency, milliseconds, count_max], Some(store)) => {
            let concurrency: usize = concurrency.parse()?;
            let mut limits = limits(milliseconds, count_max)?;
            limits.count_max = (limits.count_max / concurrency).max(1);
            let begin = Instant::now();
            let took = store.puts(concurrency, limits)?;
            Ok(json!({ "wall_ns": nanoseconds(begin.elapsed()), "ns": took }))
        }
        (["batches", records, milliseconds, count_max], Some(store)) => {
            let records: usize = records.parse()?;
            let limits = limits(milliseconds, count_max)?;
            let begin = Instant::now();
            let took = durations_until(limits, || store.put_many(records))?;
            Ok(json!({ "wall_ns": nanoseconds(begin.elapsed()), "ns": took }))
        }
        (["trim"], Some(store)) => {
            store.trim();
            Ok(json!({}))
        }
        (["close"], slot) => {
            *slot = None;
            Ok(json!({}))
        }
        (words, _) => {
            let text = format!("{name} cannot do {:?} now", words.first().unwrap_or(&""));
            Ok(json!({ "error": text }))
        }
    }
}

fn open(name: &str, directory: &Path) -> Result<Box<dyn Store>, Box<dyn Error>> {
    match name {
        "okaywal" => Ok(Box::new(okaywal_peer::Okaywal::open(directory)?)),
        "raft-engine" => Ok(Box::new(raft_engine_peer::RaftEngine::open(directory)?)),
        "rivven-core" => Ok(Box::new(rivven_peer::Rivven::open(directory)?)),
        _ => Err(format!("there is no peer {name:?}").into()),
    }
}

/// Returns when a slice ends: the time counts from now.
fn limits(milliseconds: &str, count_max: &str) -> Result<Limits, Box<dyn Error>> {
    Ok(Limits {
        deadline: Instant::now() + Duration::from_millis(milliseconds.parse()?),
        count_max: count_max.parse()?,
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns a peer's version, from the lock file that it was built with.
fn version(name: &str) -> String {
    let head = format!("name = \"{name}\"\nversion = \"");
    let found = LOCK_FILE.split_once(&head).and_then(|(_, rest)| rest.split('"').next());
    format!("{name} {}", found.unwrap_or("of unknown version"))
}
