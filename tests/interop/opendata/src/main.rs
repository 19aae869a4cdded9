//! OpenData's producer and consumer on objects that are files of a directory.
//!
//!     opendata-interop write DIR none|zstd < calls     what produce() was called with -> objects
//!     opendata-interop read DIR > batches              objects -> what next_batch() returned
//!
//! The crate's codecs are private, so its producer and consumer run on a store in memory that is
//! filled from the directory before, or copied to it behind. One line each, bytes in hex:
//!
//!     calls     `produce METADATA ENTRY...` or `flush`
//!     batches   `batch SEQUENCE LOCATION`, then its `metadata START TIME PAYLOAD` and `entry BYTES`

use std::error::Error;
use std::fs;
use std::io::{self, BufRead};
use std::path::Path as File;
use std::sync::Arc;

use buffer::{CompressionType, Consumer, ConsumerConfig, Producer, ProducerConfig};
use bytes::Bytes;
use common::ObjectStoreConfig;
use common::clock::SystemClock;
use slatedb::object_store::memory::InMemory;
use slatedb::object_store::path::Path;
use slatedb::object_store::{ObjectStore, PutPayload};
use std::time::Duration;

type Outcome = Result<(), Box<dyn Error>>;

const PREFIX: &str = "ingest";
const MANIFEST: &str = "ingest/manifest";
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", directory, compression] => write(File::new(directory), compression).await,
        ["read", directory] => read(File::new(directory)).await,
        _ => Err("usage: opendata-interop write DIR none|zstd | read DIR".into()),
    }
}

async fn write(directory: &File, compression: &str) -> Outcome {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let config = ProducerConfig {
        object_store: ObjectStoreConfig::InMemory,
        data_path_prefix: PREFIX.into(),
        manifest_path: MANIFEST.into(),
        flush_interval: NEVER,
        flush_size_bytes: usize::MAX,
        max_buffered_inputs: 1000,
        batch_compression: match compression {
            "none" => CompressionType::None,
            "zstd" => CompressionType::Zstd,
            other => return Err(format!("no compression {other}").into()),
        },
    };
    let producer = Producer::with_object_store(config, store.clone(), Arc::new(SystemClock))?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split(' ');
        match words.next() {
            Some("flush") => producer.flush().await?,
            Some("produce") => {
                let mut parts = words.map(bytes_of).collect::<Result<Vec<_>, _>>()?;
                let entries = parts.split_off(1);
                producer.produce(entries, parts.remove(0)).await?;
            }
            _ => return Err(format!("no call: {line}").into()),
        }
    }
    producer.close().await?;
    let listed = store.list_with_delimiter(Some(&Path::from(PREFIX))).await?;
    for object in listed.objects {
        let file = directory.join(object.location.as_ref());
        fs::create_dir_all(file.parent().ok_or("no parent")?)?;
        fs::write(file, store.get(&object.location).await?.bytes().await?)?;
    }
    Ok(())
}

async fn read(directory: &File) -> Outcome {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for file in fs::read_dir(directory.join(PREFIX))? {
        let file = file?;
        let name = format!("{PREFIX}/{}", file.file_name().to_string_lossy());
        store.put(&Path::from(name), PutPayload::from(fs::read(file.path())?)).await?;
    }
    let config = ConsumerConfig {
        object_store: ObjectStoreConfig::InMemory,
        manifest_path: MANIFEST.into(),
        data_path_prefix: PREFIX.into(),
        gc_interval: NEVER,
        gc_grace_period: NEVER,
    };
    let mut consumer = Consumer::with_object_store(config, store, None).await?;
    while let Some(batch) = consumer.next_batch().await? {
        println!("batch {} {}", batch.sequence, batch.location);
        for item in &batch.metadata {
            let payload = hex_of(&item.payload);
            println!("metadata {} {} {payload}", item.start_index, item.ingestion_time_ms);
        }
        for entry in &batch.entries {
            println!("entry {}", hex_of(entry));
        }
    }
    Ok(())
}

fn bytes_of(hex: &str) -> Result<Bytes, Box<dyn Error>> {
    let digits = hex.as_bytes().chunks(2);
    let bytes = digits.map(|two| Ok(u8::from_str_radix(std::str::from_utf8(two)?, 16)?));
    bytes.collect::<Result<Vec<u8>, Box<dyn Error>>>().map(Bytes::from)
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
