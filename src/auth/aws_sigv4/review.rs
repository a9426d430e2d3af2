//! What to do about a refusal: each remedy once in an exchange, and a word about it to whoever looks.

use std::time::Duration;

use http::{Method, StatusCode, header};

use super::{
    AwsSigv4, Tried, Used,
    answer::{self, Complaint, Fault},
};
use crate::auth::scheme::{Reply, Verdict};

/// How far clocks may differ before that is why a signature is refused.
const TOLERANCE: Duration = Duration::from_secs(240);

impl AwsSigv4 {
    /// What to do about a refusal, and what to tell about it.
    pub(super) fn judge(
        &self,
        reply: &Reply<'_>,
        complaint: &Complaint,
        used: &Used,
        tried: &mut Tried,
    ) -> (Verdict, Vec<String>) {
        if let Some(note) = self.learn_region(reply, complaint, used, tried) {
            return (Verdict::Retry, vec![note]);
        }
        let fault = match complaint.fault() {
            // An answer to HEAD has no body that says why.
            Fault::Other if reply.request.method == Method::HEAD && reply.status == StatusCode::FORBIDDEN => {
                Fault::Signature
            }
            fault => fault,
        };
        let may_be_clock = fault == Fault::Clock || (fault == Fault::Signature && self.is_far_off(reply, used));
        if may_be_clock && !std::mem::replace(&mut tried.clock, true) {
            let learnt = self.skew.learn_date(reply, self.clock.now());
            let seconds = self.skew.offset(reply.target);
            let note = format!("aws_sigv4: the clock of {} is {seconds} s ahead of ours", reply.target);
            return if learnt { (Verdict::Retry, vec![note]) } else { (Verdict::Deliver, Vec::new()) };
        }
        let mut notes = Vec::new();
        if fault == Fault::Signature {
            notes = difference(complaint, used);
            if used.has_marks {
                self.learnt.flip_marks(reply.target);
                if !std::mem::replace(&mut tried.marks, true) {
                    return (Verdict::Retry, notes);
                }
            }
        }
        // A secret that was written anew makes another signature; one that was fetched belongs to its access key.
        let suspect = fault == Fault::Keys || (fault == Fault::Signature && !self.material.is_fetched());
        let renew = suspect && self.material.is_renewable() && !std::mem::replace(&mut tried.keys, true);
        (if renew { Verdict::Renew } else { Verdict::Deliver }, notes)
    }

    /// S3 has named another region for this bucket.
    fn learn_region(&self, reply: &Reply<'_>, complaint: &Complaint, used: &Used, tried: &mut Tried) -> Option<String> {
        let (region, bucket) = (complaint.region.as_ref()?, used.bucket.as_ref()?);
        let redirects = matches!(reply.status, StatusCode::MOVED_PERMANENTLY | StatusCode::BAD_REQUEST);
        if !redirects || used.asymmetric || *region == used.region {
            return None;
        }
        if std::mem::replace(&mut tried.region, true) {
            // That was no good advice: the bucket wants another host, not another scope.
            self.learnt.forget_region(bucket);
            return None;
        }
        self.learnt.set_region(bucket.clone(), region);
        Some(format!("aws_sigv4: the bucket is in {region}, not in {}", used.region))
    }

    /// True if the server's clock is so far from the time that was signed that it may have refused it for that.
    fn is_far_off(&self, reply: &Reply<'_>, used: &Used) -> bool {
        let date = reply.headers.get(header::DATE).and_then(|date| date.to_str().ok());
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else { return false };
        let distance = date.duration_since(used.at).unwrap_or_else(|error| error.duration());
        distance > TOLERANCE
    }
}

/// The lines in which the server's canonical request differs from ours, after a word that says so.
fn difference(complaint: &Complaint, used: &Used) -> Vec<String> {
    let (Some(server), Some(ours)) = (&complaint.canonical, &used.canonical) else { return Vec::new() };
    let lines = answer::difference(server, ours);
    if lines.is_empty() {
        return vec!["aws_sigv4: the server's canonical request is ours, so the secret key is another one".to_owned()];
    }
    let title = "aws_sigv4: the server's canonical request (-) differs from ours (+):".to_owned();
    std::iter::once(title).chain(lines).collect()
}
