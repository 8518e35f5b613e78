//! Clients that are told their place between events come back to it, though they have never been given one.

use crate::browser::Browser;
use crate::cast::{self, Stage};
use crate::crowd::{self, CATALOGUE, STREAM, post, until_all, until_reading};
use crate::server::{Options, Server};

const EVENTS: u64 = 10;

#[tokio::test]
#[cfg_attr(without_clients, ignore = "SLUICE_TEST_CLIENTS=off")]
async fn a_client_that_takes_its_place_misses_nothing_though_it_has_never_seen_an_event() {
    // Long enough for the server to be back, with events, before any of them.
    let options = Options::default().streams(CATALOGUE).env("SLUICE__HUB__RETRY", "5s");
    let mut server = Server::start(options).await;
    let (stage, browser) = (Stage::set().await, Browser::start().await);
    let url = format!("http://{}/v2/stream/{STREAM}", server.address);
    let page = browser.open(&format!("http://{}/_info", server.address)).await;
    let asking = format!("{url}?positions=true");
    let mut followers = vec![
        // Known by what it says of itself.
        stage.run(cast::PYWIKIBOT, &url),
        stage.run(cast::REQUESTS_SSE, &asking),
        stage.run(cast::AIOHTTP_SSE_CLIENT, &asking),
        stage.run(cast::EVENTSOURCE_2, &asking),
        stage.run(cast::EVENTSOURCE_5, &asking),
        stage.run(cast::NODE, &asking),
        cast::in_page("Chromium", page, &asking),
    ];
    until_reading(&server, followers.len()).await;

    assert!(server.stop().await.success());
    server.start_again().await;
    let posted = post(&server, 0, EVENTS).await;
    assert_eq!(server.metric("sluice_streams_open").await, 0.0, "somebody came back too soon for this to say anything");
    until_all(&mut followers, posted).await;
    crowd::each_has_every_number_once(&followers, posted);
    drop(followers);
    browser.close().await;
}
