//! Asks a listener for its metadata over a real socket: a broker calls itself ready when that is answered.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::protocol::api::Api;
use crate::protocol::header::frame_request;
use crate::protocol::messages::Metadata;
use crate::protocol::messages::metadata::MetadataRequest;
use crate::protocol::wire::Chunks;

/// Longest that a broker takes to answer itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends Metadata for no topics and waits for the answer.
///
/// # Errors
/// The socket's; a time-out.
pub async fn ask_metadata(bound: SocketAddr) -> io::Result<()> {
    match tokio::time::timeout(PATIENCE, exchange(bound)).await {
        Ok(answered) => answered,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn exchange(bound: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(reachable(bound)).await?;
    stream.write_all(&request()?).await?;
    let size = stream.read_i32().await?;
    let mut answer = vec![0; usize::try_from(size).unwrap_or_default()];
    stream.read_exact(&mut answer).await?;
    Ok(())
}

fn request() -> io::Result<bytes::Bytes> {
    let body =
        MetadataRequest { topics: Some(Vec::new()), allow_auto_topic_creation: false, ..Default::default() };
    let mut out = Chunks::default();
    frame_request::<Metadata>(&mut out, Metadata::MAX_VERSION, 0, "ottla-probe", &body);
    out.concat()
}

/// An address of this machine that reaches a socket bound to `bound`.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}
