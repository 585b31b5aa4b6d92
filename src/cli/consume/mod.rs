//! `ottla consume`: records of topics, by offset or as a member of a group.

mod fetcher;
mod format;
pub(super) mod member;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;

use self::fetcher::{Fetcher, Reading, Readings};
use self::format::{Format, Part};
use self::member::{Member, Standing};
use super::client::{ClientError, Cluster, ClusterFlags, Isolation, TopicPartition};
use super::interrupt::Interrupt;
use super::output::record_bar;
use super::position::{Position, Range, ranges, resolve};
use super::{CommandError, EXIT_CODES, REFUSED, USER_ERROR, group};
use crate::protocol::wire::Str;
use crate::record::{InvalidBatch, Record};

/// Bytes that are gathered before they are written.
const OUTPUT_BYTES: usize = 64 << 10;
/// How often what was printed is committed.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long a member that has no partitions rests between two looks at its group.
const IDLE: Duration = Duration::from_millis(100);

const EXAMPLES: &str = r#"Examples:
  ottla consume letters
  ottla consume letters:0,2 --from -10 --format '%p %o %k %v\n'
  ottla consume letters --from 2026-11-22T10:00:00Z --to 2026-11-22T11:00:00Z --json
  ottla consume letters --group readers --follow

Where to read (--from, --to): beginning, end, an offset, -N (so many before the end), @MILLISECONDS, or a time in RFC 3339.

In a template %t is the topic, %p the partition, %o the offset, %T the timestamp in ms, %k the key, %v the value, %h the
headers (k=v,k=v), %s the size of the value in bytes (-1 if it is null), %% a percent sign; \n \t \r \0 \\ \xHH are escapes.
Null prints nothing.

With --json keys and values that are not UTF-8 are {"base64": "…"}; `ottla produce --json` reads these lines."#;

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct Flags {
    #[command(flatten)]
    cluster: ClusterFlags,
    /// Topics, or some of their partitions
    #[arg(required = true, value_name = "TOPIC[:PARTITION,...]")]
    topics: Vec<Selection>,
    /// Where to begin; with --group only where nothing is committed [default: beginning]
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    from: Option<Position>,
    /// Where to stop, before that record [default: the end as it is at the start]
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, conflicts_with = "follow")]
    to: Option<Position>,
    /// Stop after so many records
    #[arg(long, short = 'n', value_name = "N")]
    max_messages: Option<u64>,
    /// Do not stop at the end: wait for more
    #[arg(long, short)]
    follow: bool,
    /// Share the topics with the other members of this group, go on where it was, and commit what was printed
    #[arg(long, short, value_name = "ID")]
    group: Option<Str>,
    /// What to print of each record
    #[arg(long, value_name = "TEMPLATE", default_value = r"%v\n", value_parser = template)]
    format: Template,
    /// Print one JSON object a line
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Whether records of open and aborted transactions are printed
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "read_committed")]
    isolation: Isolation,
}

/// A template. A type of its own, since a `Vec` would be a repeatable flag.
#[derive(Clone, Debug)]
struct Template(Vec<Part>);

/// A topic, or some of its partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Selection {
    pub(super) topic: Str,
    /// `None`: all.
    pub(super) partitions: Option<Vec<i32>>,
}

impl FromStr for Selection {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected TOPIC or TOPIC:PARTITION,...";
        let Some((topic, partitions)) = text.split_once(':') else {
            return if text.is_empty() {
                Err(FORM)
            } else {
                Ok(Self { topic: text.into(), partitions: None })
            };
        };
        let number = |text: &str| text.parse().ok().filter(|partition| *partition >= 0);
        let partitions: Option<Vec<i32>> = partitions.split(',').map(number).collect();
        match partitions {
            Some(partitions) if !topic.is_empty() => {
                Ok(Self { topic: topic.into(), partitions: Some(partitions) })
            }
            _ => Err(FORM),
        }
    }
}

impl Selection {
    /// The partitions that are meant.
    ///
    /// # Errors
    /// The topic or one of them is not there.
    pub(super) fn places(&self, cluster: &mut Cluster) -> Result<Vec<TopicPartition>, ClientError> {
        let topic = cluster.retrying(|cluster| cluster.topic(&self.topic))?;
        let there: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
        let wanted = self.partitions.as_ref().unwrap_or(&there);
        match wanted.iter().find(|partition| !there.contains(partition)) {
            Some(missing) => Err(ClientError::NoPartition {
                place: TopicPartition::new(&self.topic, *missing),
                partitions: there.len(),
            }),
            None => Ok(wanted.iter().map(|partition| TopicPartition::new(&self.topic, *partition)).collect()),
        }
    }
}

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConsumeError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot write: {0}")]
    Output(#[source] io::Error),
    #[error("{place} at offset {base_offset}: {source}")]
    Batch { place: TopicPartition, base_offset: i64, source: InvalidBatch },
    #[error("{topic}: a group shares out whole topics, name no partitions with --group")]
    GroupOfPartitions { topic: Str },
}

impl ConsumeError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) if error.is_of_connection() => USER_ERROR,
            Self::GroupOfPartitions { .. } => USER_ERROR,
            Self::Client(_) | Self::Output(_) | Self::Batch { .. } => REFUSED,
        }
    }
}

/// Prints the records.
pub(super) fn run(flags: Flags) -> Result<(), CommandError> {
    let cluster = flags.cluster.connect()?;
    let interrupt = Interrupt::listen().map_err(CommandError::Runtime)?;
    let mut consumer = Consumer::new(cluster, interrupt, &flags);
    match &flags.group {
        None => consumer.read_alone()?,
        Some(group) => consumer.read_in_group(group)?,
    }
    Ok(())
}

struct Consumer<'f> {
    flags: &'f Flags,
    cluster: Cluster,
    fetcher: Fetcher,
    format: Format,
    out: BufWriter<Stdout>,
    /// Records that may still be printed.
    left: u64,
    bar: ProgressBar,
    interrupt: Interrupt,
}

impl<'f> Consumer<'f> {
    fn new(cluster: Cluster, interrupt: Interrupt, flags: &'f Flags) -> Self {
        Self {
            cluster,
            fetcher: Fetcher::new(flags.isolation),
            format: if flags.json { Format::Json } else { Format::Template(flags.format.0.clone()) },
            out: BufWriter::with_capacity(OUTPUT_BYTES, io::stdout()),
            left: flags.max_messages.unwrap_or(u64::MAX),
            bar: ProgressBar::hidden(),
            interrupt,
            flags,
        }
    }

    fn read_alone(&mut self) -> Result<(), ConsumeError> {
        let mut places = Vec::new();
        for selection in &self.flags.topics {
            places.extend(selection.places(&mut self.cluster)?);
        }
        let mut readings = self.readings(&places, &BTreeMap::new())?;
        self.show_progress(&readings);
        while !self.is_over(&readings) {
            self.print_more(&mut readings)?;
        }
        self.bar.finish_and_clear();
        Ok(())
    }

    fn read_in_group(&mut self, group: &Str) -> Result<(), ConsumeError> {
        if let Some(selection) = self.flags.topics.iter().find(|selection| selection.partitions.is_some()) {
            return Err(ConsumeError::GroupOfPartitions { topic: selection.topic.clone() });
        }
        let topics: Vec<Str> = self.flags.topics.iter().map(|selection| selection.topic.clone()).collect();
        for topic in &topics {
            self.cluster.retrying(|cluster| cluster.topic(topic))?;
        }
        let mut member = Member::new(group.clone(), topics);
        let mut outcome = Ok(false);
        while let Ok(false) = outcome {
            outcome = self.read_generation(group, &mut member);
        }
        // Whatever has happened: the others need not wait for us.
        member.leave(&mut self.cluster);
        outcome.map(drop)
    }

    /// Reads until the generation is over (`false`), or all is read or the user wants no more (`true`).
    fn read_generation(&mut self, group: &Str, member: &mut Member) -> Result<bool, ConsumeError> {
        let places = member.join(&mut self.cluster)?;
        let committed = group::committed(&mut self.cluster, group, Some(&places))?;
        let mut readings = self.readings(&places, &committed)?;
        let mut done: BTreeMap<TopicPartition, i64> = committed;
        let mut commit_at = Instant::now() + COMMIT_EVERY;
        loop {
            let is_over = self.is_over(&readings);
            let standing = member.heartbeat(&mut self.cluster)?;
            if is_over || standing == Standing::Rebalances || Instant::now() >= commit_at {
                commit_at = Instant::now() + COMMIT_EVERY;
                let position =
                    |(place, reading): (&TopicPartition, &Reading)| (place.clone(), reading.position);
                let mut news: BTreeMap<_, _> = readings.iter().map(position).collect();
                news.retain(|place, offset| done.get(place) != Some(offset));
                match member.commit(&mut self.cluster, &news)? {
                    Standing::Lost => return Ok(is_over),
                    Standing::Holds | Standing::Rebalances => done.extend(news),
                }
            }
            if is_over {
                return Ok(true);
            }
            if standing != Standing::Holds {
                return Ok(false);
            }
            if readings.is_empty() {
                sleep(IDLE);
            } else {
                self.print_more(&mut readings)?;
            }
        }
    }

    /// Where to begin and stop in each partition: at what is committed, if it is still there, else where the flags say.
    fn readings(
        &mut self,
        places: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Readings, ConsumeError> {
        if places.is_empty() {
            return Ok(Readings::new());
        }
        let isolation = self.flags.isolation;
        let ranges = ranges(&mut self.cluster, places.iter(), isolation)?;
        let from = self.flags.from.unwrap_or(Position::Beginning);
        let mut at = resolve(&mut self.cluster, &ranges, from, isolation)?;
        for (place, Range { start, end_exclusive }) in &ranges {
            let committed = committed.get(place).filter(|offset| (*start..=*end_exclusive).contains(offset));
            at.extend(committed.map(|offset| (place.clone(), *offset)));
        }
        let to = self.flags.to.unwrap_or(Position::End);
        let ends = match self.flags.follow {
            true => BTreeMap::new(),
            false => resolve(&mut self.cluster, &ranges, to, isolation)?,
        };
        // Beyond the end nothing will come while we read.
        let end = |place: &TopicPartition| {
            let there = ranges.get(place).map_or(i64::MAX, |range| range.end_exclusive);
            ends.get(place).map(|end| (*end).min(there))
        };
        let reading = |(place, position): (TopicPartition, i64)| {
            let end_exclusive = end(&place);
            (place, Reading { position, end_exclusive })
        };
        Ok(at.into_iter().map(reading).collect())
    }

    fn print_more(&mut self, readings: &mut Readings) -> Result<(), ConsumeError> {
        let Self { cluster, fetcher, format, out, left, bar, .. } = self;
        fetcher.fetch(cluster, readings, |place, record: Record| {
            format.print(out, place, &record).map_err(ConsumeError::Output)?;
            bar.inc(1);
            *left -= 1;
            Ok(*left > 0)
        })?;
        out.flush().map_err(ConsumeError::Output)
    }

    fn is_over(&self, readings: &Readings) -> bool {
        let all_done = || readings.values().all(Reading::is_done);
        self.left == 0 || self.interrupt.is_asked() || !self.flags.follow && all_done()
    }

    /// A bar, where it stands beside the records and not between them.
    fn show_progress(&mut self, readings: &Readings) {
        let left =
            |reading: &Reading| reading.end_exclusive.map(|end| (end - reading.position).max(0) as u64);
        let total: Option<u64> = readings.values().map(left).sum();
        if let Some(total) = total.filter(|_| !io::stdout().is_terminal()) {
            self.bar = record_bar(total.min(self.left));
        }
    }
}

fn template(text: &str) -> Result<Template, String> {
    format::template(text).map(Template)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{CommandLine, one_line};

    #[test]
    fn a_topic_may_name_partitions() {
        let selection = |topic: &str, partitions: Option<&[i32]>| Selection {
            topic: topic.into(),
            partitions: partitions.map(<[i32]>::to_vec),
        };
        assert_eq!("t".parse(), Ok(selection("t", None)));
        assert_eq!("t:3".parse(), Ok(selection("t", Some(&[3]))));
        assert_eq!("t:3,0".parse(), Ok(selection("t", Some(&[3, 0]))));
        for bad in ["", ":0", "t:", "t:-1", "t:x", "t:1,"] {
            assert!(bad.parse::<Selection>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_flag_is_one_line_that_names_it() {
        for (arguments, named) in [
            (&[][..], "TOPIC"),
            (&["t", "--from", "yesterday"], "expected beginning, end"),
            (&["t", "--to", "1", "--follow"], "--follow"),
            (&["t", "--format", "%x"], "behind % may stand"),
            (&["t", "--format", "%v", "--json"], "--json"),
            (&["t", "--isolation", "serializable"], "read_committed"),
            (&["t:x"], "TOPIC:PARTITION"),
        ] {
            let error = CommandLine::try_parse_from([&["ottla", "consume"], arguments].concat()).unwrap_err();
            let message = one_line(&error.to_string());
            assert!(message.contains(named) && !message.contains('\n'), "{message}");
        }
        let dash = ["ottla", "consume", "t", "--from", "-10", "--to", "end"];
        assert!(CommandLine::try_parse_from(dash).is_ok());
    }
}
