//! The broker inside a program: started in its runtime, gone when dropped.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ottla::protocol::messages::fetch::FetchRequest;
use ottla::protocol::messages::metadata::MetadataRequest;
use ottla::protocol::messages::{Metadata, Produce};
use ottla::{Broker, Config};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::spawn_blocking;

use running::{Client, eventually, fetch_request, numbered, values_of};

const SIDE_BY_SIDE: usize = 20;

fn waiting() -> FetchRequest {
    FetchRequest { max_wait_ms: 600_000, ..fetch_request("t", 0, 1) }
}

fn is_free(address: &str) -> bool {
    TcpListener::bind(address).is_ok()
}

fn runtimes() -> [Runtime; 2] {
    [Builder::new_current_thread(), Builder::new_multi_thread()]
        .map(|mut builder| builder.enable_all().build().unwrap())
}

/// Appends, reads back, and leaves connections behind: an idle one and one whose fetch waits.
fn use_it(address: &str) -> [Client; 2] {
    let [mut idle, mut parked] = [Client::connect(address), Client::connect(address)];
    idle.append("t", ["a"]);
    assert_eq!(values_of(&idle.read_all("t", 0)), ["a"]);
    parked.park(12, &waiting());
    [idle, parked]
}

#[test]
fn what_is_dropped_is_gone_at_once() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let broker = Broker::start(Config::ephemeral().topic("t", 1)).await.unwrap();
            let (address, data) = (broker.bootstrap(), broker.data().to_owned());
            let used = spawn_blocking({
                let address = address.clone();
                move || use_it(&address)
            });
            let mut clients = used.await.unwrap();
            assert!(data.join("t-0").exists() && !is_free(&address));
            drop(broker);
            // Nothing else has run on this thread since: no task had to help.
            assert!(!data.exists() && is_free(&address));
            spawn_blocking(move || clients.iter_mut().all(Client::is_closed_unanswered)).await.unwrap();
            let tasks = || Handle::current().metrics().num_alive_tasks();
            while tasks() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}

#[test]
fn a_broker_may_outlive_its_runtime() {
    for runtime in runtimes() {
        let broker = runtime.block_on(Broker::ephemeral()).unwrap();
        let (address, data) = (broker.bootstrap(), broker.data().to_owned());
        drop(runtime);
        drop(broker);
        assert!(is_free(&address) && !data.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_side_by_side_do_not_see_each_other() {
    let starting: Vec<_> =
        (0..SIDE_BY_SIDE).map(|_| tokio::spawn(Broker::start(Config::ephemeral().topic("t", 1)))).collect();
    let mut brokers = Vec::new();
    for starting in starting {
        brokers.push(starting.await.unwrap().unwrap());
    }
    for (number, broker) in brokers.iter().enumerate() {
        Client::connect(&broker.bootstrap()).append("t", [number]);
    }
    let cluster_id = |broker: &Broker| {
        let answer = Client::connect(&broker.bootstrap()).call::<Metadata>(13, &MetadataRequest::default());
        answer.cluster_id.unwrap().to_string()
    };
    let mut ids: Vec<_> = brokers.iter().map(cluster_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), SIDE_BY_SIDE);
    // One after the other goes, and the rest stay what they are.
    while let Some(gone) = brokers.pop() {
        let data = gone.data().to_owned();
        drop(gone);
        assert!(!data.exists());
        for (number, broker) in brokers.iter().enumerate() {
            let values = values_of(&Client::connect(&broker.bootstrap()).read_all("t", 0));
            assert_eq!(values, [number.to_string()]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_under_load_loses_nothing_that_was_acknowledged() {
    for flush in ["commit", "os"] {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data").display().to_string();
        let settings = [("listeners", "127.0.0.1:0"), ("log.dir", &data), ("ottla.flush", flush)];
        let config = Config::from_settings(settings).unwrap().topic("t", 1);
        let broker = Broker::start(config.clone()).await.unwrap();
        let (address, loaded) = (broker.bootstrap(), AtomicBool::new(false));
        let acknowledged = thread::scope(|scope| {
            let producer = scope.spawn(|| {
                let mut client = Client::connect(&address);
                for number in 0.. {
                    let request = running::produce_request("t", 0, numbered([number]).build());
                    let answer = client.try_call::<Produce>(12, &request);
                    let code = answer.map(|answer| answer.responses[0].partition_responses[0].error_code);
                    // The connection is gone, or the log was found closed.
                    if !matches!(code, Ok(0)) {
                        return number;
                    }
                    loaded.store(number > 100, Ordering::Release);
                }
                unreachable!("the numbers do not end")
            });
            eventually("records are appended", || loaded.load(Ordering::Acquire).then_some(()));
            drop(broker);
            producer.join().unwrap()
        });
        let again = Broker::start(config).await.unwrap();
        let values = values_of(&Client::connect(&again.bootstrap()).read_all("t", 0));
        // The one that was under way may be there too.
        assert!(values.len() == acknowledged || values.len() == acknowledged + 1, "{flush}");
        assert_eq!(values[..acknowledged], (0..acknowledged).map(|n| n.to_string()).collect::<Vec<_>>());
        again.stop().await;
    }
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing_behind() {
    let first = Broker::ephemeral().await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data").display().to_string();
    let config = |name: &str| Config::from_settings([(name, data.as_str())]).unwrap();
    let free = || config("log.dir").with("listeners", "127.0.0.1:0");
    let refused = Broker::start(free().unwrap().topic("no such/name", 1)).await.err().unwrap();
    assert!(refused.to_string().contains("no such/name"), "{refused}");
    let taken = config("log.dir").with("listeners", first.bootstrap()).unwrap();
    let refused = Broker::start(taken).await.err().unwrap();
    assert!(refused.to_string().contains(&first.bootstrap()), "{refused}");
    // The directory is not locked any more.
    Broker::start(free().unwrap()).await.unwrap().stop().await;
}
