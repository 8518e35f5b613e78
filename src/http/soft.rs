//! No, said softly: a stream that opens, waits, asks for patience, and ends.
//!
//! For what will pass by itself, such as overload or a stop: a status other than 200 ends a browser's EventSource for good,
//! while `retry:` makes it come back. What cannot be told so, because it does not read Server-Sent Events, gets a 503.

use actix_web::{HttpRequest, HttpResponse};
use tokio::io::AsyncWriteExt;

use super::Services;
use super::client_ip;
use super::error::COME_BACK_SECONDS;
use super::handover::{Handover, HandoverBody};
use super::held;
use super::sse::{Framing, Wire};
use super::transport::Transport;
use super::{head, wishes};
use crate::metrics as names;
use crate::model::Format;

/// Whether who asks reads Server-Sent Events.
pub(super) fn suits(request: &HttpRequest) -> bool {
    wishes::format(request.headers()) == Format::Sse
}

/// Takes no reader and no buffers. Where no more can be held it ends at once.
pub(super) fn refuse(request: &HttpRequest, services: &Services) -> HttpResponse {
    metrics::counter!(names::REFUSALS, "status" => "200").increment(1);
    let framing = head::framing(request);
    let wire = Wire { format: Format::Sse, framing };
    let retry_ms = fastrand::u64(COME_BACK_SECONDS.start() * 1_000..=COME_BACK_SECONDS.end() * 1_000);
    let held = services.patience.hold(&client_ip::asker(request, &services.limits).key);
    let (Some(to), Some(held)) = (request.conn_data::<Handover>(), held) else {
        let mut answer = head::ok(request);
        answer.force_close();
        let bare = Wire { framing: Framing::Raw, ..wire };
        return answer.body([bare.opening(), bare.farewell(retry_ms)].concat());
    };
    let wait = held::wait_now(services);
    let then = move |mut io: Transport, place| {
        let held = held.on(place);
        let said = async move {
            // It is small, and nothing else waits unsent: the kernel takes it. If not, the client is gone.
            if io.write_all(&wire.opening()).await.is_ok() && io.flush().await.is_ok() {
                held::run(io, wire.farewell(retry_ms), held, wait).await;
            }
        };
        drop(actix_rt::spawn(said));
    };
    head::framed(head::ok(request).body(HandoverBody::new(to.clone(), then)), framing)
}
