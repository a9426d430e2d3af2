//! What the control interface says of recorded traffic: lists, single exchanges, events, HAR files, `curl` lines and
//! replays.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    ControlState,
    body::ControlBody,
    server::{failure, json, respond, text},
};
use crate::console::{
    Store, csv, curl, har, preview,
    store::{Event, Filter, NAMES, Row},
};

/// A request for this part.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    /// The path behind `/api/`.
    pub(super) path: &'a str,
    pub(super) query: Query,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
}

/// The query of a request, decoded.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Refused> {
        self.get(name)
            .map(|value| value.parse())
            .transpose()
            .map_err(|_| Refused(StatusCode::BAD_REQUEST, format!("`{name}` is a number")))
    }

    fn filter(&self) -> Result<Filter, Refused> {
        Filter::parse(self.get("filter").unwrap_or_default())
            .map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))
    }
}

/// Answers `exchanges…`, `events` and `har`; `None` for every other path.
pub(super) async fn route(state: &Arc<dyn ControlState>, asked: Asked<'_>) -> Option<Response<ControlBody>> {
    let mut parts = asked.path.split('/');
    let place = (parts.next()?, parts.next(), parts.next(), parts.next());
    if !matches!(place, ("exchanges", _, _, None) | ("events" | "har" | "csv" | "filters", None, None, None)) {
        return None;
    }
    let Some(store) = state.console().store().cloned() else {
        let why = "nothing is recorded: `console.keep.exchanges` is 0";
        return Some(failure(StatusCode::CONFLICT, why.to_owned()));
    };
    let answer = match (asked.method.as_str(), place) {
        ("GET", ("exchanges", None, ..)) => list(store, &asked).await,
        ("DELETE", ("exchanges", None, ..)) => {
            store.clear();
            Ok(json(StatusCode::OK, &json!({ "message": "cleared" })))
        }
        ("GET", ("exchanges", Some(id), None, _)) => detail(state, store, id).await,
        ("GET", ("exchanges", Some(id), Some("curl"), _)) => command(store, id).await,
        ("POST", ("exchanges", Some(id), Some("replay"), _)) => replay(state, store, id, &asked.body).await,
        ("GET", ("exchanges", Some(id), Some("picture"), _)) => picture(store, id, &asked.query).await,
        ("GET", ("events", ..)) => asked.query.filter().map(|filter| events(store, filter, &asked)),
        ("GET", ("har", ..)) => asked.query.filter().map(|filter| export(store, filter)),
        ("GET", ("csv", ..)) => table(store, &asked).await,
        ("POST", ("har", ..)) => import(state, &store, &asked.body),
        ("GET", ("filters", ..)) => Ok(json(StatusCode::OK, &filters())),
        _ => Ok(text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n")),
    };
    Some(answer.unwrap_or_else(|Refused(status, why)| failure(status, why)))
}

/// Why there is no answer: the status, and words for a person.
struct Refused(StatusCode, String);

type Answer = Result<Response<ControlBody>, Refused>;

/// Work that reads files, off the threads that serve.
async fn reading<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
    let broken = |_| Refused(StatusCode::INTERNAL_SERVER_ERROR, "reading the recorded traffic broke off".to_owned());
    tokio::task::spawn_blocking(work).await.map_err(broken)
}

async fn list(store: Store, asked: &Asked<'_>) -> Answer {
    let filter = asked.query.filter()?;
    let before = asked.query.number("before")?;
    let limit = asked.query.number("limit")?.unwrap_or(200).min(MAX_ROWS);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let looked = store.clone();
    let (era, sequence) = store.position();
    let rows = reading(move || looked.rows(&filter, before, limit)).await?;
    let rows: Vec<&Row> = rows.iter().map(AsRef::as_ref).collect();
    let object = json!({
        "exchanges": rows, "not_kept": store.passed_over(), "bytes": store.bytes(), "position": format!("{era}.{sequence}"),
    });
    Ok(json(StatusCode::OK, &object))
}

fn number(id: &str) -> Result<u64, Refused> {
    id.parse().map_err(|_| Refused(StatusCode::BAD_REQUEST, "the number of an exchange is a number".to_owned()))
}

async fn find(store: Store, id: &str) -> Result<Value, Refused> {
    let id = number(id)?;
    let found = reading(move || store.detail(id)).await?;
    found.ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("exchange {id} is not kept (any more)")))
}

async fn detail(state: &Arc<dyn ControlState>, store: Store, id: &str) -> Answer {
    let mut detail = find(store, id).await?;
    detail["explanation"] = state.explain(&detail);
    Ok(json(StatusCode::OK, &detail))
}

async fn command(store: Store, id: &str) -> Answer {
    let detail = find(store, id).await?;
    let line = curl::command(&detail)
        .ok_or_else(|| Refused(StatusCode::CONFLICT, "a tunnel that was not looked into has no request".to_owned()))?;
    Ok(respond(StatusCode::OK, "text/plain; charset=utf-8", (line + "\n").into()))
}

/// A picture, as a document that has no origin, runs nothing and loads nothing. Only our own page may frame it. Browsers
/// put a style of their own around a picture.
async fn picture(store: Store, id: &str, query: &Query) -> Answer {
    let send = usize::try_from(query.number("send")?.unwrap_or(0)).unwrap_or(usize::MAX);
    let detail = find(store, id).await?;
    let (kind, bytes) = preview::picture(&detail, send)
        .ok_or_else(|| Refused(StatusCode::NOT_FOUND, "there is no picture that was kept whole".to_owned()))?;
    let mut response = respond(StatusCode::OK, kind, bytes.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PICTURE_POLICY));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    Ok(response)
}

const PICTURE_POLICY: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'";

/// The rows for a spreadsheet, oldest first.
async fn table(store: Store, asked: &Asked<'_>) -> Answer {
    let filter = asked.query.filter()?;
    let rows = reading(move || store.rows(&filter, None, usize::MAX)).await?;
    let mut text = csv::head();
    for row in rows.iter().rev() {
        text.push_str(&csv::line(&json!(row.as_ref())));
    }
    let mut response = respond(StatusCode::OK, "text/csv; charset=utf-8", text.into());
    let name = HeaderValue::from_static("attachment; filename=\"countersign.csv\"");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

async fn replay(state: &Arc<dyn ControlState>, store: Store, id: &str, body: &Bytes) -> Answer {
    let edits = match body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(body)
            .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("the edits are no JSON: {error}")))?,
    };
    let detail = find(store, id).await?;
    match state.replay(detail, edits).await {
        Ok(done) => Ok(json(StatusCode::OK, &done)),
        Err(why) => Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, why)),
    }
}

fn import(state: &Arc<dyn ControlState>, store: &Store, body: &Bytes) -> Answer {
    let bad = |why: String| Refused(StatusCode::UNPROCESSABLE_ENTITY, why);
    // Some programs on Windows write a byte order mark.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let file: Value = serde_json::from_slice(body).map_err(|error| bad(format!("this is no HAR file: {error}")))?;
    let console = state.console();
    let rows = har::import(&file, state.redactor(), || console.next_id()).map_err(bad)?;
    let count = rows.len();
    for (row, detail) in rows {
        store.import(row, &detail);
    }
    Ok(json(StatusCode::OK, &json!({ "imported": count })))
}

/// One entry after the other, so that a long file never lies in memory.
fn export(store: Store, filter: Filter) -> Response<ControlBody> {
    let ids = stream::once(async move {
        let looked = store.clone();
        let rows =
            tokio::task::spawn_blocking(move || looked.rows(&filter, None, usize::MAX)).await.unwrap_or_default();
        stream::iter(rows.into_iter().rev().map(move |row| (store.clone(), row.id)))
    })
    .flatten();
    let entries = ids.then(|(store, id)| async move {
        let detail = tokio::task::spawn_blocking(move || store.detail(id)).await.ok().flatten();
        detail.map(|detail| har::entries(&detail)).unwrap_or_default()
    });
    let mut first = true;
    let entries = entries.map(move |entries| {
        let mut text = String::new();
        for entry in entries {
            text.push_str(if std::mem::take(&mut first) { "\n" } else { ",\n" });
            text.push_str(&entry.to_string());
        }
        Bytes::from(text)
    });
    let whole = stream::once(async { Bytes::from(har::beginning()) })
        .chain(entries.filter(|piece| std::future::ready(!piece.is_empty())))
        .chain(stream::once(async { Bytes::from_static(har::END.as_bytes()) }));
    let mut response = Response::new(ControlBody::stream(whole));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"countersign.har\""));
    response
}

fn filters() -> Value {
    NAMES.iter().map(|(name, example)| json!({ "name": name, "example": example })).collect()
}

/// Server-sent events (WHATWG HTML section 9.2): a row for each exchange that is over, open ones every second. A client
/// that comes back with `Last-Event-ID` (or names a position in `after`) gets what it has missed, or `resync` if that
/// cannot be told any more.
fn events(store: Store, filter: Filter, asked: &Asked<'_>) -> Response<ControlBody> {
    let listener = store.events();
    let last = asked.headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let last = last.or_else(|| asked.query.get("after")).and_then(|id| id.split_once('.'));
    let last = last.and_then(|(era, sequence)| Some((era.parse().ok()?, sequence.parse().ok()?)));
    let is_other = |last: &(u64, u64)| last.0 != store.era();
    let again = last.filter(is_other).map(|_| event("resync", None, "{}"));
    let missed = last.filter(|last| !is_other(last)).map(|(_, last)| store.rows_after(last)).unwrap_or_default();
    let filter = Arc::new(filter);
    let live = Live { store: store.clone(), filter: Arc::clone(&filter), listener, open: 0, ticks: 0 };
    let missed: Vec<_> =
        missed.into_iter().filter(|row| store.fits(&filter, row)).map(|row| row_event(&store, &row)).collect();
    let (era, sequence) = store.position();
    // Also where nothing has happened yet, a client that loses the connection knows where it was.
    let hello = Bytes::from(format!("id: {era}.{}\n\n", last.map_or(sequence, |(_, last)| last.min(sequence))));
    let start = stream::once(async { hello }).chain(stream::iter(again.into_iter().chain(missed)));
    let mut response = Response::new(ControlBody::stream(start.chain(live.stream())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

struct Live {
    store: Store,
    filter: Arc<Filter>,
    listener: broadcast::Receiver<Event>,
    /// Open exchanges when last told.
    open: usize,
    ticks: u64,
}

impl Live {
    fn stream(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut live| async move {
            loop {
                match tokio::time::timeout(TICK, live.listener.recv()).await {
                    Ok(Ok(event)) => {
                        if let Some(text) = live.tell(event).await {
                            return Some((text, live));
                        }
                    }
                    Ok(Err(RecvError::Lagged(_))) => return Some((event("resync", None, "{}"), live)),
                    Ok(Err(RecvError::Closed)) => return None,
                    Err(_) => {
                        if let Some(text) = live.tick().await {
                            return Some((text, live));
                        }
                    }
                }
            }
        })
    }

    async fn tell(&self, what: Event) -> Option<Bytes> {
        match what {
            Event::Row(row) => {
                let (store, filter, looked) = (self.store.clone(), Arc::clone(&self.filter), Arc::clone(&row));
                let fits = tokio::task::spawn_blocking(move || store.fits(&filter, &looked)).await.unwrap_or(false);
                fits.then(|| row_event(&self.store, &row))
            }
            Event::Cleared => Some(event("cleared", None, "{}")),
            Event::Notice(text) => Some(event("notice", None, &json!({ "text": &*text }).to_string())),
        }
    }

    /// Once a second without news: what is still open, and now and then a sign of life.
    async fn tick(&mut self) -> Option<Bytes> {
        self.ticks += 1;
        let open = self.store.open(&self.filter);
        if open.is_empty() && self.open == 0 {
            return self.ticks.is_multiple_of(15).then(|| Bytes::from_static(b": alive\n\n"));
        }
        self.open = open.len();
        Some(event("running", None, &json!(open).to_string()))
    }
}

const TICK: Duration = Duration::from_secs(1);
/// Rows of one list.
const MAX_ROWS: u64 = 10_000;

fn row_event(store: &Store, row: &Row) -> Bytes {
    event("row", Some(format!("{}.{}", store.era(), row.sequence)), &json!(row).to_string())
}

/// `data` is one line of JSON.
fn event(name: &str, id: Option<String>, data: &str) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n").into()
}
