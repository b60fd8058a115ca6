//! The ceiling that the benchmark compares with: axum on two workers, which answers any increment with the same bytes.
//!
//! `bare_axum BODY_BYTES` listens on a free port of 127.0.0.1 and prints its address.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

/// As many as the processor of the published figures has, and as a node on that machine has.
const WORKERS: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let bytes = std::env::args().nth(1).ok_or("give the body's length in bytes")?.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    Ok(runtime.block_on(serve(bytes))?)
}

async fn serve(bytes: usize) -> io::Result<()> {
    let body = body(bytes);
    let increment = move || {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    let routes = Router::new().route("/rate/increment", post(increment));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    // Without it every request takes a little longer; no reason to stop.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, routes).await
}

/// `{"result":true}`, padded with spaces, which JSON allows.
fn body(bytes: usize) -> Bytes {
    format!("{:<bytes$}", r#"{"result":true}"#).into()
}
