//! Families of samples and how they are written: OpenMetrics 1.0, and the older Prometheus text format 0.0.4.
//!
//! <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>,
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::{collections::HashSet, fmt};

use http::{HeaderMap, header};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::Distribution;

/// All samples of one name.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    kind: Kind,
    samples: Vec<(Labels, Value)>,
}

/// Names and values.
pub type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

#[derive(Debug)]
enum Value {
    Whole(u64),
    Real(f64),
    Spread(Distribution),
    Info,
}

/// A format that scrapers understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
    /// `text/plain; version=0.0.4`
    Text,
}

impl Family {
    fn new(name: &'static str, unit: Option<Unit>, help: &'static str, kind: Kind) -> Self {
        Self { name, unit, help, kind, samples: Vec::new() }
    }

    /// Numbers that only grow; samples are called `name_total`.
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, None, help, Kind::Counter)
    }

    /// Numbers that rise and fall.
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, None, help, Kind::Gauge)
    }

    /// Durations.
    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Some(Unit::Seconds), help, Kind::Histogram)
    }

    /// Facts, told in labels; the sample is called `name_info`.
    pub fn info(name: &'static str, help: &'static str) -> Self {
        Self::new(name, None, help, Kind::Info)
    }

    /// In seconds; the unit becomes the end of the name.
    #[must_use]
    pub fn seconds(mut self) -> Self {
        self.unit = Some(Unit::Seconds);
        self
    }

    /// In bytes; the unit becomes the end of the name.
    #[must_use]
    pub fn bytes(mut self) -> Self {
        self.unit = Some(Unit::Bytes);
        self
    }

    /// With a sample that has no labels.
    #[must_use]
    pub fn is(mut self, value: u64) -> Self {
        self.put(Vec::new(), value);
        self
    }

    /// The same for a value that need not be a whole number.
    #[must_use]
    pub fn is_real(mut self, value: f64) -> Self {
        self.put_real(Vec::new(), value);
        self
    }

    /// Adds a sample.
    pub fn put(&mut self, labels: Labels, value: u64) {
        self.samples.push((labels, Value::Whole(value)));
    }

    /// Adds a sample that need not be a whole number.
    pub fn put_real(&mut self, labels: Labels, value: f64) {
        self.samples.push((labels, Value::Real(value)));
    }

    /// Adds a distribution.
    pub fn put_spread(&mut self, labels: Labels, spread: Distribution) {
        self.samples.push((labels, Value::Spread(spread)));
    }

    /// Adds facts.
    pub fn put_facts(&mut self, facts: Labels) {
        self.samples.push((facts, Value::Info));
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        let mut all = encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), kind)?;
        for (labels, value) in &self.samples {
            if let Value::Info = value {
                all.encode_info(labels)?;
            } else if labels.is_empty() {
                self.sample(&mut all, value)?;
            } else {
                self.sample(&mut all.encode_family(labels)?, value)?;
            }
        }
        Ok(())
    }

    fn sample(&self, encoder: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
        match (value, self.kind) {
            (Value::Whole(value), Kind::Counter) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
            (Value::Real(value), Kind::Counter) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
            (Value::Whole(value), _) => encoder.encode_gauge(value),
            (Value::Real(value), _) => encoder.encode_gauge(value),
            (Value::Spread(spread), _) => {
                encoder.encode_histogram::<NoLabelSet>(spread.sum, spread.count, &spread.buckets, None)
            }
            (Value::Info, _) => Ok(()),
        }
    }
}

impl Format {
    /// What the client would rather have, by its `Accept` (RFC 9110 section 12.5.1). The older format if it does not say.
    pub fn wanted(headers: &HeaderMap) -> Self {
        let mut best = (0.0, Self::Text);
        for range in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
            for range in range.split(',') {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default();
                let weight = |part: &str| part.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
                let other_version = parts.clone().any(|part| part.starts_with("version=") && !part.contains("1.0.0"));
                let weight = parts.find_map(weight).unwrap_or(1.0);
                let format = match kind.to_ascii_lowercase().as_str() {
                    "application/openmetrics-text" if !other_version => Self::OpenMetrics,
                    "text/plain" | "text/*" | "*/*" => Self::Text,
                    _ => continue,
                };
                if weight > best.0 {
                    best = (weight, format);
                }
            }
        }
        best.1
    }

    /// For `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// All families as one text.
    pub fn render(self, families: Vec<Family>) -> String {
        let named = |kind| families.iter().filter(|family| family.kind == kind).map(Family::full_name).collect();
        let names = match self {
            Self::OpenMetrics => None,
            Self::Text => Some((named(Kind::Counter), named(Kind::Info))),
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(All(families)));
        let mut written = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut written, &registry);
        match names {
            None => written,
            Some((counters, infos)) => as_text(&written, &counters, &infos),
        }
    }
}

impl Family {
    fn full_name(&self) -> String {
        match &self.unit {
            Some(unit) => format!("{}_{}", self.name, unit.as_str()),
            None => self.name.to_owned(),
        }
    }
}

/// The older format differs in its comments alone: they name counters and facts as samples are named, and there is neither
/// unit nor end.
fn as_text(open_metrics: &str, counters: &HashSet<String>, infos: &HashSet<String>) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (Some(what @ ("HELP" | "TYPE")), Some(name), rest) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let suffix = match () {
            () if counters.contains(name) => "_total",
            () if infos.contains(name) => "_info",
            () => "",
        };
        let rest = if what == "TYPE" && infos.contains(name) { "gauge" } else { rest.unwrap_or_default() };
        text.push_str(&format!("# {what} {name}{suffix} {rest}\n"));
    }
    text
}

/// For the encoder, which asks for one part at a time.
#[derive(Debug)]
struct All(Vec<Family>);

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Histogram;

    fn families() -> Vec<Family> {
        let mut requests = Family::counter("x_requests", "Requests.");
        requests.put(vec![("rule", "a \"b\"\\\n".to_owned()), ("outcome", "2xx".to_owned())], 3);
        let histogram = Histogram::new(&[0.5]);
        histogram.observe(Duration::from_secs(1));
        let mut waits = Family::histogram("x_wait", "Time.");
        waits.put_spread(Vec::new(), histogram.read());
        let mut build = Family::info("x_build", "Version.");
        build.put_facts(vec![("version", "1".to_owned())]);
        vec![requests, waits, build, Family::gauge("x_size", "Size.").bytes().is(7)]
    }

    #[test]
    fn open_metrics() {
        insta::assert_snapshot!(Format::OpenMetrics.render(families()), @r#"
        # HELP x_requests Requests.
        # TYPE x_requests counter
        x_requests_total{rule="a \"b\"\\\n",outcome="2xx"} 3
        # HELP x_wait_seconds Time.
        # TYPE x_wait_seconds histogram
        # UNIT x_wait_seconds seconds
        x_wait_seconds_sum 1.0
        x_wait_seconds_count 1
        x_wait_seconds_bucket{le="0.5"} 0
        x_wait_seconds_bucket{le="+Inf"} 1
        # HELP x_build Version.
        # TYPE x_build info
        x_build_info{version="1"} 1
        # HELP x_size_bytes Size.
        # TYPE x_size_bytes gauge
        # UNIT x_size_bytes bytes
        x_size_bytes 7
        # EOF
        "#);
    }

    #[test]
    fn the_older_format() {
        insta::assert_snapshot!(Format::Text.render(families()), @r#"
        # HELP x_requests_total Requests.
        # TYPE x_requests_total counter
        x_requests_total{rule="a \"b\"\\\n",outcome="2xx"} 3
        # HELP x_wait_seconds Time.
        # TYPE x_wait_seconds histogram
        x_wait_seconds_sum 1.0
        x_wait_seconds_count 1
        x_wait_seconds_bucket{le="0.5"} 0
        x_wait_seconds_bucket{le="+Inf"} 1
        # HELP x_build_info Version.
        # TYPE x_build_info gauge
        x_build_info{version="1"} 1
        # HELP x_size_bytes Size.
        # TYPE x_size_bytes gauge
        x_size_bytes 7
        "#);
    }

    #[test]
    fn the_client_chooses() {
        let wanted = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Format::wanted(&headers)
        };
        assert_eq!(Format::wanted(&HeaderMap::new()), Format::Text);
        assert_eq!(wanted("*/*"), Format::Text);
        // What Prometheus 2.42 sends.
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(wanted(prometheus), Format::OpenMetrics);
        assert_eq!(wanted("application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5"), Format::Text);
        assert_eq!(wanted("application/openmetrics-text;q=0.2, text/plain;q=0.9"), Format::Text);
        assert_eq!(wanted("Application/OpenMetrics-Text"), Format::OpenMetrics);
        assert_eq!(wanted("application/openmetrics-text;q=0"), Format::Text);
    }
}
