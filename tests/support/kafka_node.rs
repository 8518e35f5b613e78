//! A Kafka node of the test's own: broker and controller in one Java process, on free ports, with data that is removed.
//! Another one may join it, as a broker.
//!
//! Java is run by a small shell script that takes orders from a pipe. When the pipe closes, because the node was
//! dropped or because the test process died in whatever way, the script kills Java and removes the data: no orphans,
//! and no `unsafe` for a parent-death signal.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::broker::Broker;
use super::kafka_jars::kafka_jars;

/// A node that has not answered by then never will.
const START_WITHIN: Duration = Duration::from_secs(60);
const START_ATTEMPTS: usize = 5;
/// How much of the node's log a failure shows.
const LOG_TAIL_LINES: usize = 30;

/// `$1` is the node's folder, the rest the command that runs Kafka. Each order is answered with one line.
const SUPERVISOR: &str = r#"
trap : INT TERM HUP
dir=$1; shift; pid=
while read -r order; do
  case $order in
    start) "$@" >>"$dir/node.log" 2>&1 </dev/null & pid=$! ;;
    STOP|CONT) kill -s "$order" "$pid" ;;
    TERM|KILL) kill -s CONT "$pid"; kill -s "$order" "$pid"; wait "$pid" ;;
  esac
  echo done
done
[ -z "$pid" ] || { kill -s KILL "$pid"; wait "$pid"; }
rm -rf "$dir"
"#;

/// Stops and gives back its data when the last clone is dropped.
#[derive(Clone)]
pub struct KafkaNode(Arc<Mutex<Node>>);

struct Node {
    dir: TempDir,
    jars: PathBuf,
    id: u32,
    cluster_id: String,
    broker_port: u16,
    /// Where clients are told to come; its own port if nowhere else.
    advertised_port: Option<u16>,
    controller_port: u16,
    supervisor: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl KafkaNode {
    /// A node that answers.
    pub async fn start() -> Self {
        Self::try_start().await.unwrap_or_else(|fault| panic!("{fault}"))
    }

    pub async fn try_start() -> Result<Self, String> {
        Self::start_as(Role::Alone { advertised_port: None }).await
    }

    /// A node that tells its clients to come to this port of this machine, wherever it is itself.
    pub async fn start_behind(port: u16) -> Self {
        let role = Role::Alone { advertised_port: Some(port) };
        Self::start_as(role).await.unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// A second broker of this node's cluster.
    pub async fn start_another(&self) -> Self {
        let role = {
            let node = self.node();
            Role::Beside { cluster_id: node.cluster_id.clone(), controller_port: node.controller_port }
        };
        Self::start_as(role).await.unwrap_or_else(|fault| panic!("{fault}"))
    }

    async fn start_as(role: Role) -> Result<Self, String> {
        let node = spawn_blocking(move || Node::start(&role)).await.expect("starting a node does not panic")?;
        Ok(Self(Arc::new(Mutex::new(node))))
    }

    pub fn bootstrap(&self) -> String {
        self.node().bootstrap()
    }

    pub fn broker(&self) -> Broker {
        Broker::at(&self.bootstrap())
    }

    /// A clean stop (SIGTERM), waited for.
    pub async fn stop(&self) {
        self.order("TERM").await;
    }

    /// A crash (SIGKILL).
    pub async fn kill(&self) {
        self.order("KILL").await;
    }

    /// A stall: connections stay open and nothing is answered.
    pub async fn pause(&self) {
        self.order("STOP").await;
    }

    pub async fn resume(&self) {
        self.order("CONT").await;
    }

    /// After `stop` or `kill`: the same data at the same address. Returns when it answers.
    pub async fn start_again(&self) {
        self.with(|node| node.run_until_it_answers().unwrap_or_else(|fault| panic!("{fault}"))).await;
    }

    /// A clean stop, then the same data at another address. Returns when it answers.
    pub async fn restart_at_new_address(&self) {
        self.with(|node| {
            node.order("TERM");
            node.broker_port = free_port();
            node.write_properties();
            node.run_until_it_answers().unwrap_or_else(|fault| panic!("{fault}"));
        })
        .await;
    }

    /// Runs one of Kafka's own tools, such as `org.apache.kafka.tools.consumer.group.ConsumerGroupCommand`; what it printed.
    pub async fn tool(&self, class: &'static str, arguments: Vec<String>) -> String {
        let jars = self.node().jars.clone();
        let run = spawn_blocking(move || java(&jars).arg(class).args(arguments).output()).await;
        let run = run.expect("running a tool does not panic").expect("java runs");
        String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr)
    }

    async fn order(&self, order: &'static str) {
        self.with(move |node| node.order(order)).await;
    }

    async fn with(&self, act: impl FnOnce(&mut Node) + Send + 'static) {
        let this = self.clone();
        spawn_blocking(move || act(&mut this.node())).await.expect("the node obeys");
    }

    /// A test that failed while it held the node must not hide its failure behind a poisoned lock.
    fn node(&self) -> MutexGuard<'_, Node> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node is in its cluster.
enum Role {
    /// Broker and controller.
    Alone { advertised_port: Option<u16> },
    /// A broker more.
    Beside { cluster_id: String, controller_port: u16 },
}

impl Node {
    fn start(role: &Role) -> Result<Self, String> {
        let jars = kafka_jars()?;
        let mut fault = String::new();
        // Another process may take a port between the choice and the bind: then the node goes, and the next one tries others.
        for _ in 0..START_ATTEMPTS {
            let mut node = Self::prepare(&jars, role);
            node.format()?;
            match node.run_until_it_answers() {
                Ok(()) => return Ok(node),
                Err(StartError::PortTaken) => fault = "every port chosen was taken by somebody else".to_owned(),
                Err(other) => return Err(other.to_string()),
            }
        }
        Err(fault)
    }

    fn prepare(jars: &Path, role: &Role) -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-kafka-").tempdir().expect("a folder for the node's data");
        let command = java(jars);
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "kafka-node"])
            .arg(dir.path())
            .arg(command.get_program())
            .args(["-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(command.get_args())
            .arg("kafka.Kafka")
            .arg(dir.path().join("server.properties"))
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let orders = supervisor.stdin.take();
        let answers = BufReader::new(supervisor.stdout.take().expect("stdout is a pipe"));
        let broker_port = free_port();
        let (id, cluster_id, controller_port, advertised_port) = match role {
            // A leading 'A' keeps a random '-' from reading as an option.
            Role::Alone { advertised_port } => {
                let random = URL_SAFE_NO_PAD.encode(fastrand::u128(..).to_be_bytes());
                (1, format!("A{}", &random[1..]), free_port(), *advertised_port)
            }
            Role::Beside { cluster_id, controller_port } => (2, cluster_id.clone(), *controller_port, None),
        };
        let jars = jars.to_owned();
        let node = Self {
            dir,
            jars,
            id,
            cluster_id,
            broker_port,
            advertised_port,
            controller_port,
            supervisor,
            orders,
            answers,
        };
        node.write_properties();
        node
    }

    fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.broker_port)
    }

    /// One node has no replicas, small buffers, a cleaner in a hurry and a short memory of its own crash: tests wait for it.
    fn write_properties(&self) {
        let (broker, controller) = (self.broker_port, self.controller_port);
        let (id, advertised) = (self.id, self.advertised_port.unwrap_or(broker));
        let (roles, and_controller) = match self.leads() {
            true => ("broker,controller", format!(",CONTROLLER://127.0.0.1:{controller}")),
            false => ("broker", String::new()),
        };
        let data = self.dir.path().join("data");
        let text = format!(
            "process.roles={roles}\nnode.id={id}\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{broker}{and_controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{advertised}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\nlog.dirs={data}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n\
             log.cleaner.dedupe.buffer.size=16777216\nlog.cleaner.backoff.ms=200\n\
             log.retention.check.interval.ms=500\n",
            data = data.display(),
        );
        fs::write(self.dir.path().join("server.properties"), text).expect("the node's folder can be written");
    }

    fn format(&self) -> Result<(), String> {
        let alone: &[&str] = if self.leads() { &["--standalone"] } else { &[] };
        let run = java(&self.jars)
            .args(["-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format"])
            .args(alone)
            .args(["-t", &self.cluster_id, "-c"])
            .arg(self.dir.path().join("server.properties"))
            .output()
            .map_err(|fault| fault.to_string())?;
        match run.status.success() {
            true => Ok(()),
            false => Err(format!("Kafka's storage cannot be made: {}", String::from_utf8_lossy(&run.stderr))),
        }
    }

    fn run_until_it_answers(&mut self) -> Result<(), StartError> {
        // The log of an earlier run would be mistaken for this one's.
        fs::write(self.log_path(), "").expect("the node's folder can be written");
        self.order("start");
        let broker = Broker::at(&self.bootstrap());
        let end = Instant::now() + START_WITHIN;
        while !broker.answers_within(Duration::from_millis(500)) {
            let log = self.log_tail();
            if log.contains("Address already in use") {
                return Err(StartError::PortTaken);
            }
            if log.contains("Exiting Kafka") || log.contains("Error occurred during initialization") {
                return Err(StartError::Ended(log));
            }
            if Instant::now() > end {
                return Err(StartError::Silent(log));
            }
        }
        Ok(())
    }

    fn leads(&self) -> bool {
        self.id == 1
    }

    fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("orders are taken until the node is dropped");
        writeln!(orders, "{order}").expect("the supervisor reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the supervisor answers");
        assert_eq!(answer, "done\n", "the node's supervisor is gone");
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("node.log")
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

/// Waited for, so that a test which ended has given back its ports and its memory.
impl Drop for Node {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.supervisor.wait();
    }
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("another process took the node's port")]
    PortTaken,
    #[error("Kafka did not start; the end of its log:\n{0}")]
    Ended(String),
    #[error("Kafka did not answer within {START_WITHIN:?}; the end of its log:\n{0}")]
    Silent(String),
}

fn java(jars: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(jars.join("*"));
    command
}

/// Below the range that outgoing connections use: a stopped node finds its port free when it starts again.
fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(12_000..32_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of them is free")
}
