//! Every client at once, on one stream, over a server that stops and starts again and one that is killed.

use crate::browser::Browser;
use crate::cast::{self, Script, Stage};
use crate::crowd::{self, CATALOGUE, STREAM, post, until_all, until_reading};
use crate::follower::Follower;
use crate::server::{Options, Server};
use crate::site::Site;

const SCRIPTS: [Script; 9] = [
    cast::CURL,
    cast::REQUESTS_SSE,
    cast::SSECLIENT_PY,
    cast::AIOHTTP_SSE_CLIENT,
    cast::PYWIKIBOT,
    cast::EVENTSOURCE_2,
    cast::EVENTSOURCE_5,
    cast::NODE,
    cast::WIKIMEDIA_STREAMS,
];

/// Events of one step.
const STEP: u64 = 100;
/// Events of one POST while everybody reads.
const BATCH: u64 = 10;

#[tokio::test]
#[cfg_attr(without_clients, ignore = "SLUICE_TEST_CLIENTS=off")]
async fn no_client_loses_or_repeats_an_event_over_a_restart_and_a_kill() {
    let options = Options::default().streams(CATALOGUE).env("SLUICE__HUB__RETRY", "1s");
    let mut server = Server::start(options).await;
    let (stage, site, browser) = (Stage::set().await, Site::start().await, Browser::start().await);
    let mut followers = everybody(&stage, &server, &site, &browser).await;
    until_reading(&server, followers.len()).await;

    let mut posted = 0;
    while posted < STEP {
        posted = post(&server, posted, BATCH).await;
    }
    until_all(&mut followers, posted).await;

    // Right after a burst, of which not everybody need have had everything; and more before they are back.
    posted = post(&server, posted, STEP).await;
    assert!(server.stop().await.success());
    server.start_again().await;
    posted = post(&server, posted, STEP).await;
    until_all(&mut followers, posted).await;

    posted = post(&server, posted, STEP).await;
    server.kill().await;
    server.start_again().await;
    posted = post(&server, posted, STEP).await;
    until_all(&mut followers, posted).await;

    crowd::each_has_every_number_once(&followers, posted);
    drop(followers);
    browser.close().await;
}

async fn everybody(stage: &Stage, server: &Server, site: &Site, browser: &Browser) -> Vec<Follower> {
    let url = format!("http://{}/v2/stream/{STREAM}", server.address);
    let own_page = browser.open(&format!("http://{}/_info", server.address)).await;
    let other_page = browser.open(&site.url()).await;
    let others = [
        cast::rust_client(&url),
        cast::in_page("Chromium, same origin", own_page, &url),
        cast::in_page("Chromium, another origin", other_page, &url),
    ];
    SCRIPTS.into_iter().map(|script| stage.run(script, &url)).chain(others).collect()
}
