//! `ottla queue dlq` and `ottla queue purge`: dead letters listed, shown, sent on; messages dropped by what they are.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::http::{Door, HttpError, path};
use super::messages::Paging;
use crate::cli::CommandError;
use crate::cli::output::{NOTHING, print_json, print_table, say};
use crate::protocol::wire::Str;

/// How long the broker goes on with messages before it answers.
const SWEEP_FOR: Duration = Duration::from_secs(15);

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// The dead letters of a queue, or of a dead letter queue
    List(ListFlags),
    /// One dead letter with all that is known of its end
    Show(ShowFlags),
    /// Send dead letters back to where they died, or elsewhere
    Redrive(RedriveFlags),
    /// Drop dead letters
    Purge(PurgeFlags),
}

pub(super) fn run(door: &Door, flags: &Flags) -> Result<(), CommandError> {
    match &flags.what {
        What::List(flags) => list(door, flags),
        What::Show(flags) => show(door, flags),
        What::Redrive(flags) => redrive(door, flags),
        What::Purge(flags) => purge_letters(door, flags),
    }
}

/// Which messages: all that is said must be so.
#[derive(Args, Debug)]
struct FilterFlags {
    /// That died for this reason: max-receive-count, rejected or overflow
    #[arg(long)]
    reason: Option<String>,
    /// That died in this queue
    #[arg(long, value_name = "QUEUE")]
    from: Option<String>,
    /// That have this header, with this value if it is said
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = header)]
    header: Option<(String, Option<String>)>,
    /// That have this somewhere in their body
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// That died, or were sent if they did not, so long ago at least
    #[arg(long, value_name = "SECONDS", value_parser = age)]
    older_than: Option<Duration>,
    /// That died, or were sent if they did not, so long ago at most
    #[arg(long, value_name = "SECONDS", value_parser = age)]
    newer_than: Option<Duration>,
    /// That have this id
    #[arg(long)]
    id: Option<String>,
}

fn header(text: &str) -> Result<(String, Option<String>), &'static str> {
    match text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned()))) {
        ("", _) => Err("expected NAME or NAME=VALUE"),
        (name, value) => Ok((name.to_owned(), value)),
    }
}

/// Longer than flags for waiting may be: letters are kept for weeks.
fn age(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| time.as_secs() < 1 << 40).ok_or("expected seconds, such as 3600")
}

fn ms(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_millis() as u64)
}

impl FilterFlags {
    fn query(&self) -> Vec<(&'static str, Option<String>)> {
        let header = self.header.as_ref().map(|(name, value)| match value {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        });
        vec![
            ("reason", self.reason.clone()),
            ("queue", self.from.clone()),
            ("header", header),
            ("body", self.body.clone()),
            ("older_than_ms", ms(self.older_than).map(|ms| ms.to_string())),
            ("newer_than_ms", ms(self.newer_than).map(|ms| ms.to_string())),
            ("message_id", self.id.clone()),
        ]
    }

    fn json(&self) -> Map<String, Value> {
        let mut filter = Map::new();
        let mut add = |name: &str, value: Option<Value>| {
            filter.extend(value.map(|value| (name.to_owned(), value)));
        };
        add("reason", self.reason.clone().map(Value::from));
        add("queue", self.from.clone().map(Value::from));
        add("headers", self.header.clone().map(|(name, value)| json!({ name: value })));
        add("body", self.body.clone().map(Value::from));
        add("older_than_ms", ms(self.older_than).map(Value::from));
        add("newer_than_ms", ms(self.newer_than).map(Value::from));
        add("message_id", self.id.clone().map(Value::from));
        filter
    }
}

/// How to go about it.
#[derive(Args, Debug)]
struct SweepFlags {
    /// Messages at most; all unless said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Messages a second; as fast as can be unless said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
    /// Do not ask first
    #[arg(long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ListFlags {
    /// Name of the queue that they died in, or of the dead letter queue
    queue: String,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    paging: Paging,
}

fn list(door: &Door, flags: &ListFlags) -> Result<(), CommandError> {
    flags.paging.print(door, &flags.queue, "/dead-letters", &flags.filter.query())
}

#[derive(Args, Debug)]
struct ShowFlags {
    /// Name of the queue that it died in, or of the dead letter queue
    queue: String,
    /// Its id
    id: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn show(door: &Door, flags: &ShowFlags) -> Result<(), CommandError> {
    let mut after = None;
    let message = loop {
        let query = [("message_id", Some(flags.id.clone())), ("max", Some("1".to_owned())), ("after", after)];
        let page = door.get(&path(&flags.queue, "/dead-letters", &query))?;
        match (page["messages"].get(0), page["next"].as_str()) {
            (Some(message), _) => break message.clone(),
            (None, Some(next)) => after = Some(next.to_owned()),
            (None, None) => {
                let what = format!("queue {:?}: no dead letter has the id {}", flags.queue, flags.id);
                return Err(HttpError::Messages(what).into());
            }
        }
    };
    let mut out = io::stdout().lock();
    match flags.json {
        true => print_json(&mut out, &message),
        false => print_letter(&mut out, &message),
    }
    .map_err(CommandError::Output)
}

fn print_letter(out: &mut impl Write, message: &Value) -> io::Result<()> {
    let plain = |value: &Value| match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let letter = &message["dead_letter"];
    let mut rows = Vec::new();
    for (name, value) in [
        ("id", &message["message_id"]),
        ("place", &message["place"]),
        ("state", &message["state"]),
        ("sent ms", &message["sent_ms"]),
        ("died in", &letter["queue"]),
        ("at place", &letter["source"]),
        ("reason", &letter["reason"]),
        ("moved at ms", &letter["moved_at_ms"]),
        ("deliveries", &message["deliveries"]),
        ("redriven", &message["redriven"]),
        ("key", message.get("key").unwrap_or(&message["key_base64"])),
    ] {
        rows.push(vec![name.to_owned(), plain(value)]);
    }
    for (name, value) in
        ["headers", "headers_base64"].iter().filter_map(|of| message[of].as_object()).flatten()
    {
        let is_ours = name.starts_with("ottla.dead-letter.");
        rows.extend((!is_ours).then(|| vec![format!("header {name}"), plain(value)]));
    }
    rows.push(vec!["body".to_owned(), plain(message.get("body").unwrap_or(&message["body_base64"]))]);
    print_table(out, &["WHAT", ""], rows, "")?;
    let attempts = letter["history"].as_array().cloned().unwrap_or_default();
    if attempts.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let names = ["delivery", "received_ms", "consumer", "ended_ms", "end", "error"];
    let row = |attempt: &Value| names.iter().map(|name| plain(&attempt[name])).collect();
    let titles = ["DELIVERY", "RECEIVED MS", "CONSUMER", "ENDED MS", "END", "ERROR"];
    print_table(out, &titles, attempts.iter().map(row).collect(), "")
}

#[derive(Args, Debug)]
struct RedriveFlags {
    /// Name of the queue that they died in, or of the dead letter queue
    queue: String,
    /// To this queue; each to the one that it died in unless said
    #[arg(long, value_name = "QUEUE")]
    to: Option<Str>,
    /// Also those that were sent on three times already, and died again
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    sweep: SweepFlags,
}

fn redrive(door: &Door, flags: &RedriveFlags) -> Result<(), CommandError> {
    let mut request = Map::new();
    request.insert("filter".to_owned(), flags.filter.json().into());
    request.insert("to".to_owned(), json!(flags.to.as_deref()));
    request.insert("force".to_owned(), flags.force.into());
    let asks = format!("send dead letters of {} on?", flags.queue);
    sweep(door, &path(&flags.queue, "/redrive", &[]), request, &flags.sweep, &asks, "redriven")
}

#[derive(Args, Debug)]
pub(super) struct PurgeFlags {
    /// Name of the queue
    queue: String,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    sweep: SweepFlags,
}

/// Without a filter, a bound or a dry run all goes at once, also what is in flight.
pub(super) fn purge(door: &Door, flags: &PurgeFlags) -> Result<(), CommandError> {
    let (filter, how) = (flags.filter.json(), &flags.sweep);
    if !filter.is_empty() || how.max.is_some() || how.rate.is_some() || how.dry_run {
        return purge_some(door, &flags.queue, filter, how);
    }
    agreed(how, &format!("drop all messages of {}, also those in flight?", flags.queue))?;
    door.post(&path(&flags.queue, "/purge", &[]), &Value::Null, SWEEP_FOR)?;
    match how.json {
        true => print_json(&mut io::stdout().lock(), &json!({ "purged": flags.queue }))
            .map_err(CommandError::Output),
        false => say(&format!("purged {}", flags.queue)),
    }
}

fn purge_letters(door: &Door, flags: &PurgeFlags) -> Result<(), CommandError> {
    let mut filter = flags.filter.json();
    let queue = door.get(&path(&flags.queue, "", &[]))?;
    let letters = match queue["settings"]["dead.letter.queue"].as_str() {
        Some(letters) => {
            // Others may have theirs there, too.
            filter.insert("queue".to_owned(), json!(flags.queue));
            letters
        }
        None => &flags.queue,
    };
    purge_some(door, letters, filter, &flags.sweep)
}

fn purge_some(
    door: &Door,
    queue: &str,
    filter: Map<String, Value>,
    how: &SweepFlags,
) -> Result<(), CommandError> {
    let request = Map::from_iter([("filter".to_owned(), filter.into())]);
    sweep(door, &path(queue, "/purge", &[]), request, how, &format!("drop messages of {queue}?"), "purged")
}

/// Has the broker go on until the end, and tells what has become of the messages.
fn sweep(
    door: &Door,
    path: &str,
    mut request: Map<String, Value>,
    how: &SweepFlags,
    asks: &str,
    done_word: &str,
) -> Result<(), CommandError> {
    if !how.dry_run {
        agreed(how, asks)?;
    }
    request.insert("rate".to_owned(), json!(how.rate));
    request.insert("dry_run".to_owned(), how.dry_run.into());
    let (mut matched, mut done, mut left) = (0, 0, Vec::new());
    loop {
        let counted: u64 = if how.dry_run { matched } else { done };
        let max = how.max.map(|max| max.saturating_sub(counted));
        if max == Some(0) {
            break;
        }
        request.insert("max".to_owned(), json!(max));
        let swept = door.post(path, &Value::Object(request.clone()), SWEEP_FOR)?;
        matched += swept["matched"].as_u64().unwrap_or_default();
        done += swept["done"].as_u64().unwrap_or_default();
        left.extend(swept["left"].as_array().cloned().unwrap_or_default());
        if swept["next"].is_null() {
            break;
        }
        request.insert("after".to_owned(), swept["next"].clone());
        request.insert("began_ms".to_owned(), swept["began_ms"].clone());
    }
    if how.json {
        let told = json!({ "matched": matched, "done": done, "left": left, "dry_run": how.dry_run });
        return print_json(&mut io::stdout().lock(), &told).map_err(CommandError::Output);
    }
    if how.dry_run {
        return say(&format!("{matched} would be {done_word}"));
    }
    say(&format!("{done_word} {done} of {matched}"))?;
    let text = |left: &Value, name: &str| left[name].as_str().unwrap_or_default().to_owned();
    left.iter().try_for_each(|left| say(&format!("left {}: {}", text(left, "message_id"), text(left, "why"))))
}

fn agreed(how: &SweepFlags, asks: &str) -> Result<(), HttpError> {
    if how.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(HttpError::NotAgreed);
    }
    let mut answer = String::new();
    eprint!("{asks} [y/N] ");
    io::stdin().read_line(&mut answer).map_err(HttpError::Input)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(HttpError::NotAgreed) }
}
