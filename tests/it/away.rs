//! What producers are told while the log is away and there is no spool.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::engine::event_at;
use crate::raw::{Answer, Raw};
use crate::server::{Options, Server};

const DEADLINE: Duration = Duration::from_secs(3);
/// Told at once is told in less, and at the deadline in more.
const AT_ONCE: Duration = Duration::from_millis(1500);
const PRODUCERS: usize = 8;

/// One POST of each producer, all at once: the answers, and after how long they came.
async fn round(server: &Server) -> Vec<(Duration, Answer)> {
    let mut posts = JoinSet::new();
    for _ in 0..PRODUCERS {
        let address = server.address;
        posts.spawn(async move {
            let asked = Instant::now();
            let answer = Raw::connect(address).await.post(&event_at("test.event", 0, 0).to_string()).await;
            (asked.elapsed(), answer)
        });
    }
    posts.join_all().await
}

#[tokio::test]
async fn while_no_broker_answers_all_but_one_are_refused_at_once_as_soon_as_that_is_known() {
    let options = Options::default().kafka("127.0.0.1:1").unready();
    let server = Server::start(options.env("SLUICE__INTAKE__DEADLINE", &format!("{}s", DEADLINE.as_secs()))).await;
    // Two that wait: the first failures, and those that show that there is nothing else.
    for _ in 0..2 {
        for (took, answer) in round(&server).await {
            assert_eq!(answer.status(), 503, "{answer:?}");
            assert!(AT_ONCE < took && took < DEADLINE + AT_ONCE, "{took:?}");
        }
    }
    let told = round(&server).await;
    let (at_once, trials): (Vec<_>, Vec<_>) = told.iter().partition(|(took, _)| *took < AT_ONCE);
    println!("refused within {:?}, the trial after {:?}", at_once.iter().map(|told| told.0).max(), trials[0].0);
    assert_eq!((at_once.len(), trials.len()), (PRODUCERS - 1, 1));
    for (_, answer) in at_once {
        assert_eq!((answer.status(), answer.header("retry-after")), (503, "1"), "{answer:?}");
        let item = &answer.json()["error"][0];
        assert_eq!(item["code"], "not-written", "{item}");
        let why = item["context"]["message"].as_str().expect("a sentence");
        assert!(why.contains("it has taken nothing of topic") && why.contains("refused at once"), "{why}");
    }
    assert_eq!(trials[0].1.json()["error"][0]["code"], "not-written");
}
