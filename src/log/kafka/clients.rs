//! How each of the engine's clients is configured: sluice's choices, then the operator's, then what promises rest on.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use super::OpenError;
use super::options::{Options, PropertyFault, is_secret};
use super::producer::limits;

/// Key, headers and framing of a record beside its value.
const RECORD_OVERHEAD_BYTES: usize = 64 << 10;

/// What every client is given, unless the operator says otherwise.
const COMMON: &[(&str, &str)] = &[
    ("client.id", "sluice"),
    // A broker that was replaced is found again: names are resolved anew, and when all known brokers are gone the
    // bootstrap list is asked again.
    ("client.dns.lookup", "use_all_dns_ips"),
    ("metadata.recovery.strategy", "rebootstrap"),
    ("metadata.recovery.rebootstrap.trigger.ms", "10000"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.connection.setup.timeout.ms", "5000"),
    // A peer that vanished without a word is noticed in seconds, not in the default minute.
    ("socket.timeout.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    ("socket.nagle.disable", "true"),
    ("topic.metadata.refresh.interval.ms", "5000"),
    // Brokers close idle connections; that is no news.
    ("log.connection.close", "false"),
];

const PRODUCER: &[(&str, &str)] = &[
    // Costs about what none costs, and a third of gzip; compiled into librdkafka, so that no build is without it.
    ("compression.type", "lz4"),
    // A topic that nobody makes is reported, within the deadline of a request.
    ("topic.metadata.propagation.max.ms", "3000"),
];

const PRODUCER_KEPT: &[(&str, &str)] = &[("enable.idempotence", "true"), ("acks", "all")];

const CONSUMER: &[(&str, &str)] = &[
    ("fetch.error.backoff.ms", "100"),
    ("fetch.queue.backoff.ms", "20"),
    // Read ahead of the tail's batches; beyond it the log keeps the rest.
    ("queued.max.messages.kbytes", "32768"),
    ("topic.metadata.propagation.max.ms", "1000"),
];

const CONSUMER_KEPT: &[(&str, &str)] = &[
    ("isolation.level", "read_committed"),
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // Readers must not bring topics into being by asking for them.
    ("allow.auto.create.topics", "false"),
];

/// Reads answer a waiting reader: at the end of a partition the broker is not to wait for more.
const READS: &[(&str, &str)] = &[("fetch.wait.max.ms", "5"), ("topic.metadata.propagation.max.ms", "0")];

/// Makes clients of one cluster. Its clones all move together.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    options: Options,
    first_contact: Arc<Mutex<FirstContact>>,
    group_id: String,
    event_bytes_max: usize,
    deadline: Duration,
}

/// Where a client asks first. Others are found from there.
#[derive(Debug)]
struct FirstContact {
    servers: Vec<String>,
    generation: u64,
}

impl Clients {
    pub(super) fn new(options: Options, default_group_id: &str, event_bytes_max: usize, deadline: Duration) -> Self {
        let group_id = options.group_id.clone().unwrap_or_else(|| default_group_id.to_owned());
        let servers = options.bootstrap_servers.clone();
        let first_contact = Arc::new(Mutex::new(FirstContact { servers, generation: 0 }));
        Self { options, first_contact, group_id, event_bytes_max, deadline }
    }

    /// Clients that are made from now on begin at these addresses. False if that is where they begin already.
    pub(super) fn move_to(&self, servers: &[String]) -> bool {
        let mut first_contact = self.first_contact.lock();
        if first_contact.servers == servers {
            return false;
        }
        first_contact.servers = servers.to_vec();
        first_contact.generation += 1;
        true
    }

    /// Who asks before it makes a client knows later whether that client is of another place.
    pub(super) fn generation(&self) -> u64 {
        self.first_contact.lock().generation
    }

    /// Every property that librdkafka does not take from this key and with this value. Connects nowhere.
    pub(super) fn faults(&self) -> Vec<PropertyFault> {
        let nul = |(key, value): &(&String, &String)| key.contains('\0') || value.contains('\0');
        let with_nul = self.options.properties.iter().filter(nul).map(|(key, _)| key);
        let mut faults: Vec<PropertyFault> =
            with_nul.map(|key| PropertyFault { key: key.clone(), why: "it holds a NUL byte".to_owned() }).collect();
        for config in [self.producer(), self.reads(), self.admin()] {
            // The first one ends librdkafka's look, so each that is found is taken out before the next look.
            let mut config = config;
            faults.iter().for_each(|fault| _ = config.remove(&fault.key));
            while let Err(OpenError::Property { key, why }) =
                config.create_native_config().map(drop).map_err(open_error)
            {
                config.remove(&key);
                if faults.iter().all(|fault| fault.key != key) {
                    faults.push(PropertyFault { key, why });
                }
            }
        }
        faults
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) fn bootstrap_servers(&self) -> String {
        self.first_contact.lock().servers.join(",")
    }

    /// For who is alone: whatever the operator's `linger.ms`, there is no company to wait for.
    pub(super) fn producer_at_once(&self) -> ClientConfig {
        let mut config = self.producer();
        config.remove("queue.buffering.max.ms");
        config.set("linger.ms", "0");
        config
    }

    pub(super) fn producer_together(&self) -> ClientConfig {
        self.producer()
    }

    fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        set_all(&mut config, PRODUCER);
        set(&mut config, "linger.ms", limits::HOLD.as_millis());
        // What was handed over is settled before the request gives up, so that "not written" can be said.
        let delivery = (self.deadline - self.deadline / 8).as_millis();
        set(&mut config, "message.timeout.ms", delivery);
        set(&mut config, "request.timeout.ms", delivery);
        set(&mut config, "message.max.bytes", self.record_bytes_max().max(1_000_000));
        // The producer page refuses what is too much; librdkafka's own limits stand behind it.
        set(&mut config, "queue.buffering.max.messages", 2 * limits::RECORDS_HELD_MAX);
        set(&mut config, "queue.buffering.max.kbytes", (2 * limits::BYTES_HELD_MAX) >> 10);
        self.operators(&mut config);
        set_all(&mut config, PRODUCER_KEPT);
        config
    }

    /// For topics that take less than a batch: every record in a request of its own.
    pub(super) fn producer_of_single_records(&self) -> ClientConfig {
        let mut config = self.producer();
        set(&mut config, "batch.num.messages", 1);
        config
    }

    pub(super) fn tail(&self) -> ClientConfig {
        self.consumer(&[], "false")
    }

    pub(super) fn reads(&self) -> ClientConfig {
        self.consumer(READS, "true")
    }

    fn consumer(&self, own: &[(&str, &str)], tells_ends: &str) -> ClientConfig {
        let mut config = self.common();
        set_all(&mut config, CONSUMER);
        set(&mut config, "receive.message.max.bytes", 100_000_000.max(2 * self.record_bytes_max()));
        set_all(&mut config, own);
        self.operators(&mut config);
        set_all(&mut config, CONSUMER_KEPT);
        config.set("group.id", &self.group_id).set("enable.partition.eof", tells_ends);
        config
    }

    /// For what an administrator does.
    pub(super) fn admin(&self) -> ClientConfig {
        let mut config = self.common();
        self.operators(&mut config);
        config
    }

    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        set_all(&mut config, COMMON);
        config.set("bootstrap.servers", self.bootstrap_servers());
        config
    }

    /// An operator's alias of a property must not stand beside sluice's own name for it.
    fn operators(&self, config: &mut ClientConfig) {
        for (key, value) in &self.options.properties {
            if let Some((_, own)) = ALIASES.iter().find(|(alias, _)| alias == key) {
                config.remove(own);
            }
            config.set(key, value);
        }
    }

    fn record_bytes_max(&self) -> usize {
        self.event_bytes_max + RECORD_OVERHEAD_BYTES
    }
}

const ALIASES: &[(&str, &str)] =
    &[("delivery.timeout.ms", "message.timeout.ms"), ("queue.buffering.max.ms", "linger.ms")];

fn set_all(config: &mut ClientConfig, properties: &[(&str, &str)]) {
    for (key, value) in properties {
        config.set(*key, *value);
    }
}

fn set(config: &mut ClientConfig, key: &str, value: impl ToString) {
    config.set(key, value.to_string());
}

/// How librdkafka says that it was built without something.
const NOT_BUILT: &str = "not available at build time";

/// A client of this configuration. An absent broker is no fault: librdkafka connects when it can.
pub(super) fn make<T, C>(config: &ClientConfig, context: C) -> Result<T, OpenError>
where
    T: FromClientConfigAndContext<C>,
    C: rdkafka::ClientContext,
{
    config.create_with_context(context).map_err(open_error)
}

fn with_cure(why: &str) -> String {
    let cure = if why.contains(NOT_BUILT) { "; build sluice with --features tls,sasl,zstd" } else { "" };
    format!("{why}{cure}")
}

fn open_error(fault: KafkaError) -> OpenError {
    match fault {
        // librdkafka's sentence repeats the value.
        KafkaError::ClientConfig(_, _, key, _) if is_secret(&key) => {
            OpenError::Property { key, why: "not usable".into() }
        }
        KafkaError::ClientConfig(_, why, key, _) => OpenError::Property { key, why: with_cure(why.trim_end()) },
        fault => OpenError::Client(fault.to_string()),
    }
}
