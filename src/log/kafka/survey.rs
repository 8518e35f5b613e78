//! How every partition is: asked of each broker by itself, so that one that does not answer speaks only for its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;

use super::reader::{Cluster, Led, Until, by_leader};
use super::reads::{Check, stopping};
use crate::log::{PartitionEnds, ReadError, Sick, Surveyed};
use crate::model::{Partition, Topic};

/// For who leads what.
const CLUSTER_WITHIN: Duration = Duration::from_millis(1_200);
/// For a broker's two answers about its partitions.
const BROKER_WITHIN: Duration = Duration::from_millis(1_500);
/// Brokers asked at once, each on a thread that may block. The others wait, and a cluster of more that are silent is one
/// that does not answer: the whole ends after [`SURVEY_WITHIN`].
const BROKERS_AT_ONCE_MAX: usize = 16;
const SURVEY_WITHIN: Duration = Duration::from_secs(3);

/// What a broker said of its partitions.
type Answer = Result<Vec<PartitionEnds>, ReadError>;

/// As [`crate::log::Log::survey`].
pub(super) async fn survey(check: &Arc<Check>, topics: &[Topic], engine: &Handle) -> Result<Vec<Surveyed>, ReadError> {
    let until = Until::after(SURVEY_WITHIN);
    let (cluster, fault) = ask_the_cluster(check, topics, engine).await?;
    let mut answers: HashMap<i32, Answer> = HashMap::new();
    let asked = by_leader(cluster.led.clone()).into_iter().map(|(broker, partitions)| {
        let check = check.clone();
        async move {
            let asked = engine.spawn_blocking(move || {
                let within = BROKER_WITHIN.min(until.left());
                check.reader()?.ends(&partitions, Until::after(within))
            });
            (broker, asked.await.unwrap_or_else(|_| Err(stopping())))
        }
    });
    let mut asked = stream::iter(asked).buffer_unordered(BROKERS_AT_ONCE_MAX);
    while let Some((broker, answer)) = asked.next().await {
        answers.insert(broker, answer);
    }
    match fault {
        // Nobody says who leads what, and of those who did lead, nobody answers.
        Some(fault) if answers.values().all(Result::is_err) => Err(fault),
        _ => Ok(surveyed(&cluster, &answers)),
    }
}

/// With the fault where nobody tells: then it is as it was. A broker that stands still may be the one that was asked.
async fn ask_the_cluster(
    check: &Arc<Check>,
    topics: &[Topic],
    engine: &Handle,
) -> Result<(Cluster, Option<ReadError>), ReadError> {
    let (asking, asked_for) = (check.clone(), topics.to_vec());
    let asked = engine
        .spawn_blocking(move || asking.ask(|reader| reader.cluster(&asked_for, Until::after(CLUSTER_WITHIN))))
        .await
        .unwrap_or_else(|_| Err(stopping()));
    match asked {
        Ok(mut cluster) => {
            let mut known = check.known.lock();
            cluster.remember(&known);
            *known = cluster.clone();
            Ok((cluster, None))
        }
        Err(fault) => {
            let mut known = check.known.lock().clone();
            known.led.retain(|led| topics.contains(&led.partition.topic));
            if known.led.is_empty() { Err(fault) } else { Ok((known, Some(fault))) }
        }
    }
}

fn surveyed(cluster: &Cluster, answers: &HashMap<i32, Answer>) -> Vec<Surveyed> {
    let mut ends: HashMap<&Partition, &PartitionEnds> = HashMap::new();
    for answered in answers.values().flatten() {
        ends.extend(answered.iter().map(|one| (&one.partition, one)));
    }
    let found = |led: &Led| match ends.get(&led.partition) {
        Some(ends) => Ok(ends.first..ends.next),
        None => Err(sick(cluster, led, answers)),
    };
    cluster.led.iter().map(|led| Surveyed { partition: led.partition.clone(), ends: found(led) }).collect()
}

fn sick(cluster: &Cluster, led: &Led, answers: &HashMap<i32, Answer>) -> Sick {
    let Some(leader) = led.leader else {
        let replicas: Vec<String> = led.replicas.iter().map(|id| cluster.broker(*id)).collect();
        return Sick { broker: None, why: format!("no broker leads it; it is held by {}", replicas.join(", ")) };
    };
    let why = match answers.get(&leader) {
        Some(Err(ReadError::Unavailable(why))) => why.clone(),
        Some(Err(fault)) => fault.to_string(),
        _ => "its broker was not asked in time".to_owned(),
    };
    Sick { broker: Some(cluster.broker(leader)), why }
}
