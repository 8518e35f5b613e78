//! Who looks at metrics disturbs no producer. (How long a POST takes meanwhile: `loadtest intake --scraped`.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use crate::load::{Fate, Load};
use crate::raw::Raw;
use crate::server::{Options, Server};

const PRODUCERS: usize = 8;
const POSTS: usize = 100;
const SCRAPERS: usize = 2;
/// Their answers are more than a connection holds.
const UNREAD_REQUESTS: usize = 300;
const SMALL_BUFFER_BYTES: u32 = 4096;

#[tokio::test(flavor = "multi_thread")]
async fn scrapers_of_whom_one_never_reads_cost_no_producer_a_post() {
    let server = Server::start(Options::default()).await;
    let mut unread = Raw::with_receive_buffer(server.admin, Some(SMALL_BUFFER_BYTES)).await;
    unread.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(UNREAD_REQUESTS)).await;
    let load = Load::new(&["test.event".to_owned()], 0);
    let done = Arc::new(AtomicBool::new(false));
    let (mut producers, mut scrapers) = (JoinSet::new(), JoinSet::new());
    for _ in 0..SCRAPERS {
        scrapers.spawn(scrape(server.admin, done.clone()));
    }
    for _ in 0..PRODUCERS {
        let (load, address) = (load.clone(), server.address);
        producers.spawn(async move {
            for _ in 0..POSTS {
                load.post(address, 1).await;
            }
        });
    }
    producers.join_all().await;
    done.store(true, Ordering::Relaxed);
    let scrapes: usize = scrapers.join_all().await.into_iter().sum();
    assert_eq!(load.told(Fate::Accepted).await.len(), PRODUCERS * POSTS, "every POST was answered 201");
    assert!(scrapes >= SCRAPERS, "every scraper was answered");
    assert_eq!(unread.answer().await.status(), 200, "the one who never read was still connected");
}

async fn scrape(admin: std::net::SocketAddr, done: Arc<AtomicBool>) -> usize {
    let (mut raw, mut scrapes) = (Raw::connect(admin).await, 0);
    loop {
        let answer = raw.get("/metrics", "").await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        scrapes += 1;
        if done.load(Ordering::Relaxed) {
            return scrapes;
        }
    }
}
