//! The text format 0.0.4 of Prometheus.
//!
//! Written here and not by a library: the well-kept ones take a lock at each observation of a histogram, or build an object for
//! each sample before the first byte is written. This is a name, labels and a number a line.

use std::fmt::{Display, Write};

use super::counters::BUCKETS;
use super::{Histogram, Metric};

/// Label names and values.
pub type Labels<'a> = &'a [(&'static str, &'a dyn Display)];

/// Text for a scrape. The samples of a metric follow its description.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// The media type of the text.
    pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins the samples of a metric.
    pub fn describe(&mut self, metric: &Metric) {
        let Metric { name, kind, help } = metric;
        self.line(format_args!("# HELP {name} {}\n# TYPE {name} {kind}", Escaped(help)));
    }

    /// Writes one sample.
    pub fn sample(&mut self, metric: &Metric, labels: Labels<'_>, value: impl Display) {
        self.numbered(metric.name, "", labels, None, value);
    }

    /// Writes a metric that has one sample and no labels.
    pub fn single(&mut self, metric: &Metric, value: impl Display) {
        self.describe(metric);
        self.sample(metric, &[], value);
    }

    /// Writes the samples of one histogram.
    pub fn histogram(&mut self, metric: &Metric, labels: Labels<'_>, histogram: &Histogram) {
        let counts = histogram.cumulated();
        let ends = BUCKETS.iter().map(|(_, end)| *end).chain(["+Inf"]);
        for (end, count) in ends.zip(counts) {
            self.numbered(metric.name, "_bucket", labels, Some(end), count);
        }
        self.numbered(metric.name, "_sum", labels, None, histogram.seconds());
        self.numbered(metric.name, "_count", labels, None, counts[BUCKETS.len()]);
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was written.
    pub fn into_string(self) -> String {
        self.0
    }

    fn numbered(
        &mut self,
        name: &str,
        suffix: &str,
        labels: Labels<'_>,
        bucket_end: Option<&str>,
        value: impl Display,
    ) {
        self.0.push_str(name);
        self.0.push_str(suffix);
        let mut before = '{';
        for (label, value) in labels {
            self.label(&mut before, label, value);
        }
        if let Some(end) = bucket_end {
            self.label(&mut before, "le", &end);
        }
        self.line(format_args!("{} {value}", if before == ',' { "}" } else { "" }));
    }

    fn label(&mut self, before: &mut char, label: &str, value: &dyn Display) {
        write!(self.0, "{before}{label}=\"{}\"", Escaped(value)).expect("a string takes all that is written");
        *before = ',';
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes all that is written");
    }
}

/// Writes what it holds so that it stays within its line and its quotes.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        struct Escaping<'a, 'b>(&'a mut std::fmt::Formatter<'b>);

        impl Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                for part in text.split_inclusive(['\\', '"', '\n']) {
                    let plain = part.trim_end_matches(['\\', '"', '\n']);
                    self.0.write_str(plain)?;
                    match &part[plain.len()..] {
                        "\n" => self.0.write_str("\\n")?,
                        "" => {}
                        special => write!(self.0, "\\{special}")?,
                    }
                }
                Ok(())
            }
        }

        write!(Escaping(f), "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::names::{self, Kind};
    use super::*;

    #[test]
    fn a_sample_is_a_line_and_stays_one() {
        let mut text = Text::default();
        text.single(&names::TOPICS, 3);
        let metric = Metric { name: "m", kind: Kind::Counter, help: "A \\ and\na \"quote\"." };
        text.describe(&metric);
        text.sample(&metric, &[("a", &"x\"y\\z\n"), ("b", &-1)], 0.25);
        let text = text.into_string();
        let (topics, rest) = text.split_at(text.find("# HELP m").unwrap());
        assert!(
            topics.starts_with("# HELP ottla_topics ")
                && topics.ends_with("# TYPE ottla_topics gauge\nottla_topics 3\n")
        );
        let described = "# HELP m A \\\\ and\\na \\\"quote\\\".\n# TYPE m counter\n";
        assert_eq!(rest, format!("{described}m{{a=\"x\\\"y\\\\z\\n\",b=\"-1\"}} 0.25\n"));
    }

    #[test]
    fn a_histogram_ends_with_all_of_its_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(30));
        histogram.observe(Duration::from_secs(100));
        let mut text = Text::default();
        text.histogram(&names::SYNC_SECONDS, &[("a", &1)], &histogram);
        let text = text.into_string();
        for line in [
            "ottla_log_sync_seconds_bucket{a=\"1\",le=\"0.000025\"} 0",
            "ottla_log_sync_seconds_bucket{a=\"1\",le=\"0.00005\"} 1",
            "ottla_log_sync_seconds_bucket{a=\"1\",le=\"60\"} 1",
            "ottla_log_sync_seconds_bucket{a=\"1\",le=\"+Inf\"} 2",
            "ottla_log_sync_seconds_sum{a=\"1\"} 100.00003",
            "ottla_log_sync_seconds_count{a=\"1\"} 2",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\n{text}");
        }
    }
}
