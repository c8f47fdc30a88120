//! The datasource proxy, from a client's socket to a datasource's.

mod network;
mod oauth;
mod passing;
mod places;
mod secrets;
mod streams;
mod unsaved;

use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::pod::Pod;

pub const SUCCESS: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

pub async fn message(response: reqwest::Response) -> (StatusCode, String) {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    (status, body["message"].as_str().unwrap().to_owned())
}

/// Sends a request line as it is (clients of libraries tidy paths up) and returns status and body.
pub async fn raw_get(pod: &Pod, target: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(pod.address()).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", pod.address());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
