//! `ottla queue peek`, `send` and `receive`: messages looked at, put in and taken out.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::http::{Door, HttpError, path};
use crate::cli::CommandError;
use crate::cli::output::{NOTHING, print_json, print_table, say};
use crate::protocol::wire::Str;

/// Messages that one request can be about.
pub(super) const TOGETHER: usize = 100;

/// Characters of a body that a table shows.
const BODY_SHOWN: usize = 60;

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum State {
    Ready,
    InFlight,
    Delayed,
    Dead,
}

#[derive(Args, Debug)]
pub(super) struct PeekFlags {
    /// Name of the queue
    queue: String,
    /// Only messages in this state; dead ones have not yet been moved to the dead letter queue
    #[arg(long, value_enum)]
    state: Option<State>,
    #[command(flatten)]
    paging: Paging,
}

/// Which part of a list.
#[derive(Args, Debug)]
pub(super) struct Paging {
    /// Messages at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    max: u32,
    /// Only those behind this place, as shown before
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
    /// Print one JSON object a line: one a message, as a whole
    #[arg(long)]
    json: bool,
}

impl Paging {
    /// Goes through the pages of a list, and prints as much of it as is asked for.
    pub(super) fn print(
        &self,
        door: &Door,
        queue: &str,
        thing: &str,
        query: &[(&str, Option<String>)],
    ) -> Result<(), CommandError> {
        let (mut left, mut after, mut rows) = (self.max as usize, self.after.clone(), Vec::new());
        let mut out = io::stdout().lock();
        while left > 0 {
            let mut asked = query.to_vec();
            asked.push(("max", Some(left.min(TOGETHER).to_string())));
            asked.push(("after", after));
            let page = door.get(&path(queue, thing, &asked))?;
            let messages = page["messages"].as_array().cloned().unwrap_or_default();
            left = left.saturating_sub(messages.len());
            for message in &messages {
                match self.json {
                    true => print_json(&mut out, message).map_err(CommandError::Output)?,
                    false => rows.push(row(message)),
                }
            }
            after = page["next"].as_str().map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        match self.json {
            true => Ok(()),
            false => print_table(&mut out, &TITLES, rows, "").map_err(CommandError::Output),
        }
    }
}

const TITLES: [&str; 6] = ["PLACE", "STATE", "DELIVERIES", "REASON", "ID", "BODY"];

fn row(message: &Value) -> Vec<String> {
    let reason = message["dead_letter"]["reason"].as_str().unwrap_or(NOTHING);
    let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    let deliveries = message["deliveries"].to_string();
    vec![text("place"), text("state"), deliveries, reason.to_owned(), text("message_id"), body(message)]
}

/// As much of the body as fits a line.
fn body(message: &Value) -> String {
    let text = message["body"].as_str().or_else(|| message["body_base64"].as_str()).unwrap_or_default();
    match text.char_indices().nth(BODY_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub(super) fn peek(door: &Door, flags: &PeekFlags) -> Result<(), CommandError> {
    let state = flags.state.and_then(|state| Some(state.to_possible_value()?.get_name().to_owned()));
    flags.paging.print(door, &flags.queue, "/messages", &[("state", state)])
}

#[derive(Args, Debug)]
pub(super) struct SendFlags {
    /// Name of the queue
    queue: String,
    /// Bodies, a message each; without any, the lines of stdin
    #[arg(value_name = "BODY")]
    bodies: Vec<String>,
    /// Key of the messages: in a FIFO queue, their group
    #[arg(long, short)]
    key: Option<String>,
    /// A header of the messages. Repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = crate::cli::topic::key_value)]
    header: Vec<(Str, Str)>,
    /// How long nobody gets them
    #[arg(long, value_name = "SECONDS", value_parser = crate::cli::seconds)]
    delay: Option<Duration>,
    /// How long they may be received
    #[arg(long, value_name = "SECONDS", value_parser = crate::cli::some_seconds)]
    ttl: Option<Duration>,
    /// Of the levels that the queue has, 0 the lowest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Whoever follows with the same id within the queue's window is not a message
    #[arg(long, value_name = "ID")]
    dedup_id: Option<String>,
    /// Print one JSON object a line: one a message
    #[arg(long)]
    json: bool,
}

impl SendFlags {
    fn message(&self, body: &str) -> Value {
        let mut headers = serde_json::Map::new();
        for (name, value) in &self.header {
            let values = headers.entry(name.to_string()).or_insert_with(|| json!([]));
            values.as_array_mut().expect("it is made one line above").push(json!(&value[..]));
        }
        let ms = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
        json!({
            "body": body,
            "key": self.key,
            "headers": headers,
            "delay_ms": ms(self.delay),
            "ttl_ms": ms(self.ttl).map(|ms| ms.max(1)),
            "priority": self.priority,
            "dedup_id": self.dedup_id,
        })
    }
}

pub(super) fn send(door: &Door, flags: &SendFlags) -> Result<(), CommandError> {
    let mut refused = Vec::new();
    let mut send = |bodies: &[String]| -> Result<(), CommandError> {
        let messages: Vec<_> = bodies.iter().map(|body| flags.message(body)).collect();
        let path = path(&flags.queue, "/messages", &[]);
        let sent = door.post(&path, &json!({ "messages": messages }), Duration::ZERO)?;
        for result in sent["results"].as_array().into_iter().flatten() {
            match result.get("error") {
                Some(error) => {
                    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
                    refused.push(format!("{}: {}", text("code"), text("message")));
                }
                None if flags.json => {
                    print_json(&mut io::stdout().lock(), result).map_err(CommandError::Output)?;
                }
                None => {
                    let was_there = if result["is_duplicate"] == true { ", as it was before" } else { "" };
                    let id = result["message_id"].as_str().unwrap_or_default();
                    say(&format!("sent {id}{was_there}"))?;
                }
            }
        }
        Ok(())
    };
    if flags.bodies.is_empty() {
        let mut bodies = Vec::new();
        for line in io::stdin().lock().lines() {
            bodies.push(line.map_err(HttpError::Input)?);
            if bodies.len() == TOGETHER {
                send(&bodies)?;
                bodies.clear();
            }
        }
        if !bodies.is_empty() {
            send(&bodies)?;
        }
    } else {
        flags.bodies.chunks(TOGETHER).try_for_each(&mut send)?;
    }
    if refused.is_empty() { Ok(()) } else { Err(HttpError::Messages(refused.join("\n")).into()) }
}

#[derive(Args, Debug)]
pub(super) struct ReceiveFlags {
    /// Name of the queue
    queue: String,
    /// Messages at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    max: u32,
    /// How long to wait for the first, up to 20
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = wait)]
    wait: Duration,
    /// How long nobody else gets them, up to 12 hours; the queue's visibility.timeout.ms unless said
    #[arg(long, value_name = "SECONDS", value_parser = visibility)]
    visibility: Option<Duration>,
    /// Acknowledge them once they are printed: nobody gets them again
    #[arg(long)]
    ack: bool,
    /// What to be called in the history of messages that come to nothing
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Print one JSON object a line: one a message, as a whole
    #[arg(long)]
    json: bool,
}

fn wait(text: &str) -> Result<Duration, &'static str> {
    let time = crate::cli::seconds(text)?;
    if time.as_secs_f64() <= 20.0 { Ok(time) } else { Err("expected at most 20 seconds") }
}

fn visibility(text: &str) -> Result<Duration, &'static str> {
    let time = crate::cli::seconds(text)?;
    if time.as_secs() <= 43_200 { Ok(time) } else { Err("expected at most 43200 seconds") }
}

pub(super) fn receive(door: &Door, flags: &ReceiveFlags) -> Result<(), CommandError> {
    let wanted = json!({
        "max": flags.max,
        "wait_ms": flags.wait.as_millis() as u64,
        "visibility_ms": flags.visibility.map(|time| time.as_millis() as u64),
        "consumer": flags.consumer,
    });
    let received = door.post(&path(&flags.queue, "/receive", &[]), &wanted, flags.wait)?;
    let messages = received["messages"].as_array().cloned().unwrap_or_default();
    let mut out = io::stdout().lock();
    let text = |message: &Value, name: &str| message[name].as_str().unwrap_or_default().to_owned();
    match flags.json {
        true => messages.iter().try_for_each(|message| print_json(&mut out, message)),
        false => {
            let row = |message: &Value| {
                let deliveries = message["deliveries"].to_string();
                vec![text(message, "message_id"), deliveries, text(message, "receipt"), body(message)]
            };
            let titles = ["ID", "DELIVERIES", "RECEIPT", "BODY"];
            print_table(&mut out, &titles, messages.iter().map(row).collect(), "")
        }
    }
    .and_then(|()| out.flush())
    .map_err(CommandError::Output)?;
    if !flags.ack || messages.is_empty() {
        return Ok(());
    }
    let done = |message: &Value| json!({ "receipt": message["receipt"], "action": "acknowledge" });
    let receipts: Vec<_> = messages.iter().map(done).collect();
    let path = path(&flags.queue, "/settle", &[]);
    let settled = door.post(&path, &json!({ "receipts": receipts }), Duration::ZERO)?;
    let refused: Vec<_> = settled["results"]
        .as_array()
        .into_iter()
        .flatten()
        .zip(&messages)
        .filter_map(|(result, message)| {
            let why = result["error"]["message"].as_str()?;
            Some(format!("message {}: {why}", text(message, "message_id")))
        })
        .collect();
    if refused.is_empty() { Ok(()) } else { Err(HttpError::Messages(refused.join("\n")).into()) }
}
