//! Between two sends of an exchange: what becomes of the refused answer, its connection and the body.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{Exchange, Prepared, Sent};
use crate::{
    auth::scheme::{BodyUse, Verdict},
    metrics::Measure,
    upstream::Link,
};

/// Bytes of a refused answer that are read so that its connection can be used again.
const MAX_DRAIN: usize = 64 << 10;
/// Time for reading a refused answer to its end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

impl Exchange<'_> {
    /// Between two sends: what becomes of the refused answer and its connection, and the rest of the body if it turns
    /// out that the credential needs it.
    pub(super) async fn send_again(
        &self,
        prepared: &mut Prepared<'_>,
        mut sent: Sent,
        verdict: Verdict,
        measure: &mut Measure,
    ) {
        let gate = sent.gate.take();
        let link = self.discard(prepared, sent).await;
        if let Some(gate) = gate {
            prepared.body.give_up(gate);
        }
        if verdict == Verdict::Continue {
            prepared.link = link;
            if let Some(link) = &mut prepared.link
                && !timeout(DRAIN_PATIENCE, link.ready()).await.unwrap_or(false)
            {
                prepared.link = None;
            }
        } else if let Some(link) = link {
            link.release();
        }
        if prepared.body_use() == BodyUse::Whole {
            let from = Instant::now();
            prepared.body.gather().await;
            measure.client(from);
        }
    }

    /// Reads a refused answer to its end, if that is near. Gives its connection if it can be used again.
    async fn discard(&self, prepared: &Prepared<'_>, sent: Sent) -> Option<Link> {
        let Sent { response, ahead, withheld, link, record, .. } = sent;
        if let (Some(record), Some(ahead)) = (&record, ahead) {
            record.reply_body(&ahead.bytes());
        }
        let mut body = response.into_body();
        let draining = async {
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                if let Some(data) = frame.data_ref() {
                    read += data.len();
                    if let Some(record) = &record {
                        record.reply_body(data);
                    }
                }
                if read > MAX_DRAIN {
                    return false;
                }
            }
            true
        };
        let drained = timeout(DRAIN_PATIENCE, draining).await.unwrap_or(false);
        if let Some(record) = &record {
            record.end();
        }
        (drained && (withheld || prepared.body.is_sent())).then_some(link)
    }
}
