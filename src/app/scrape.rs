//! The metrics: the recorder behind every count, and the text that scrapers get.
//!
//! The text is made on a thread of its own, and not more often than [`RENDER_EVERY`]: who asks sooner waits, those who wait
//! share one text, and nothing that serves readers or producers waits for them. A text is never older than its question. The
//! thread also empties the histograms, whether anybody asks or not. What fails there by a fault of ours is counted and answered 500, and the next
//! one who asks is served.

use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::oneshot;

use super::StartError;
use crate::http::{Render, RenderError};
use crate::metrics::{self as names, Kind};
use crate::model::Timestamp;

/// From one text to the next. Nobody scrapes more often to see more.
const RENDER_EVERY: Duration = Duration::from_millis(100);
/// How long samples of histograms are gathered at most, before they are put into their buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// Who waits for a text at once. The others are told so.
const ASKING_MAX: usize = 64;

/// Who waits for a text. Dropped without one where the rendering fails.
type Asking = oneshot::Sender<Bytes>;

/// The recorder is installed once; a second one in the same process is a fault at the start, never later.
pub(super) fn install() -> Result<PrometheusHandle, StartError> {
    let refused = |error: &dyn std::fmt::Display| StartError::Metrics(error.to_string());
    let mut builder = PrometheusBuilder::new();
    for metric in names::ALL {
        if let Kind::Histogram(buckets) = metric.kind {
            let matcher = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(matcher, buckets).map_err(|e| refused(&e))?;
        }
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|e| refused(&e))?;
    names::describe();
    ::metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    ::metrics::gauge!(names::START_TIME).set(Timestamp::now().0 as f64 / 1_000.0);
    count_panics();
    Ok(handle)
}

/// A panic ends its request or its task, and no more; somebody must know of it.
fn count_panics() {
    std::panic::set_hook(Box::new(|panic| {
        ::metrics::counter!(names::PANICS).increment(1);
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a part of the server failed: this is a fault in sluice; report it with this place");
    }));
}

/// From now on there is a text. `more` is what no recorder keeps, as whole lines: it is looked up when a text is made.
pub(super) fn start(recorder: PrometheusHandle, more: impl Fn() -> String + Send + 'static) -> io::Result<Render> {
    start_thread(Recorded { recorder, more }, RENDER_EVERY)
}

/// What makes the text.
trait Renderer: Send + 'static {
    fn render(&mut self) -> String;
    fn upkeep(&mut self);
}

struct Recorded<M> {
    recorder: PrometheusHandle,
    more: M,
}

impl<M: Fn() -> String + Send + 'static> Renderer for Recorded<M> {
    fn render(&mut self) -> String {
        self.recorder.render() + &(self.more)()
    }

    fn upkeep(&mut self) {
        self.recorder.run_upkeep();
    }
}

/// The thread ends when nobody is left who could ask.
fn start_thread(renderer: impl Renderer, every: Duration) -> io::Result<Render> {
    let (ask, asked) = sync_channel(ASKING_MAX);
    std::thread::Builder::new().name("metrics".to_owned()).spawn(move || run(&asked, renderer, every))?;
    Ok(Arc::new(move || text(ask.clone()).boxed()))
}

async fn text(ask: SyncSender<Asking>) -> Result<Bytes, RenderError> {
    let (tell, told) = oneshot::channel();
    match ask.try_send(tell) {
        Ok(()) => told.await.map_err(|_| RenderError::Failed),
        Err(TrySendError::Full(_)) => Err(RenderError::TooMany(ASKING_MAX)),
        Err(TrySendError::Disconnected(_)) => Err(RenderError::Failed),
    }
}

fn run(asked: &Receiver<Asking>, mut renderer: impl Renderer, every: Duration) {
    let mut last: Option<Instant> = None;
    loop {
        let first = match asked.recv_timeout(UPKEEP_EVERY) {
            Ok(asking) => asking,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                // What panics is told by the hook.
                let _ = catch_unwind(AssertUnwindSafe(|| renderer.upkeep()));
                continue;
            }
        };
        let asking = together(first, asked, last.map(|last| last + every));
        last = Some(Instant::now());
        let Ok(text) = catch_unwind(AssertUnwindSafe(|| renderer.render())) else { continue };
        let text = Bytes::from(text);
        for one in asking {
            // To one who has left: nobody misses it.
            let _ = one.send(text.clone());
        }
    }
}

/// Whoever asks until then, too; as many as may wait do not wait longer.
fn together(first: Asking, asked: &Receiver<Asking>, until: Option<Instant>) -> Vec<Asking> {
    let mut asking = vec![first];
    while asking.len() < ASKING_MAX {
        let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        match asked.recv_timeout(left) {
            Ok(another) => asking.push(another),
            Err(_) => return asking,
        }
    }
    asking
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    /// Says how often it was asked; every so many-th time it fails.
    struct Odd {
        rendered: Arc<AtomicUsize>,
        fails_every: usize,
        gate: Option<Receiver<()>>,
    }

    impl Renderer for Odd {
        fn render(&mut self) -> String {
            let count = self.rendered.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            assert!(!count.is_multiple_of(self.fails_every), "injected");
            count.to_string()
        }

        fn upkeep(&mut self) {}
    }

    fn odd(fails_every: usize, gate: Option<Receiver<()>>, every: Duration) -> (Render, Arc<AtomicUsize>) {
        let rendered = Arc::<AtomicUsize>::default();
        let render = start_thread(Odd { rendered: rendered.clone(), fails_every, gate }, every).expect("a thread");
        (render, rendered)
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_a_text_that_is_not_older_than_their_question() {
        let (render, rendered) = odd(usize::MAX, None, RENDER_EVERY);
        let began = Instant::now();
        for _ in 0..5 {
            let before = rendered.load(Ordering::Relaxed);
            for text in join_all((0..ASKING_MAX / 2).map(|_| render())).await {
                let text = text.expect("a text");
                let number: usize = std::str::from_utf8(&text).expect("a number").parse().expect("a number");
                assert!(number > before, "it was made after the question");
            }
        }
        let most = began.elapsed().div_duration_f64(RENDER_EVERY) + 1.0;
        assert!(rendered.load(Ordering::Relaxed) as f64 <= most.ceil(), "one at most in {RENDER_EVERY:?}");
    }

    #[tokio::test]
    async fn a_panic_while_rendering_is_that_scrapes_failure_and_the_next_thousand_are_served() {
        let (render, rendered) = odd(1, None, Duration::ZERO);
        assert_eq!(render().await, Err(RenderError::Failed));
        assert_eq!(
            render().await,
            Err(RenderError::Failed),
            "a failure is not kept: the next one who asks has it tried anew"
        );
        assert_eq!(rendered.load(Ordering::Relaxed), 2);

        let (render, _) = odd(2, None, Duration::ZERO);
        let mut failed = 0;
        let mut served = 0;
        while served < 1_000 {
            match render().await {
                Ok(_) => served += 1,
                Err(error) => {
                    assert_eq!(error, RenderError::Failed);
                    failed += 1;
                }
            }
            assert!(failed <= served + 1, "the thread goes on");
        }
    }

    #[tokio::test]
    async fn too_many_scrapes_at_once_are_told_so() {
        let (open, gate) = sync_channel(0);
        let (render, rendered) = odd(usize::MAX, Some(gate), Duration::ZERO);
        let first = tokio::runtime::Handle::current().spawn(render());
        while rendered.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let mut waiting: Vec<_> = (0..ASKING_MAX).map(|_| render()).collect();
        for wait in &mut waiting {
            assert!(wait.now_or_never().is_none(), "it waits");
        }
        assert_eq!(render().await, Err(RenderError::TooMany(ASKING_MAX)));
        drop(open);
        assert_eq!(first.await.expect("an answer"), Ok("1".into()));
        for wait in waiting {
            assert!(wait.await.is_ok(), "who waited is served");
        }
    }

    #[test]
    fn a_panic_is_counted_wherever_it_happens() {
        let before = std::panic::take_hook();
        // For the whole process of these tests: nobody else installs one here.
        install().expect("the first recorder");
        let recorder = PrometheusBuilder::new().build_recorder();
        let ended = ::metrics::with_local_recorder(&recorder, || catch_unwind(|| panic!("injected")));
        std::panic::set_hook(before);
        assert!(ended.is_err());
        let text = recorder.handle().render();
        assert!(text.contains(&format!("{} 1\n", names::PANICS)), "{text}");
    }

    #[tokio::test]
    async fn histograms_are_emptied_although_nobody_asks() {
        struct Kept(Option<oneshot::Sender<()>>);
        impl Renderer for Kept {
            fn render(&mut self) -> String {
                String::new()
            }
            fn upkeep(&mut self) {
                self.0.take().map(|tell| tell.send(()));
            }
        }
        let (tell, told) = oneshot::channel();
        let _render = start_thread(Kept(Some(tell)), RENDER_EVERY).expect("a thread");
        tokio::time::timeout(10 * UPKEEP_EVERY, told).await.expect("in time").expect("they are emptied");
    }
}
