//! The gRPC face, over plain HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::server::Server;

/// One unary or single-answer call: the messages and `grpc-status`.
async fn call(addr: SocketAddr, path: &str, message: &[u8]) -> (Vec<u8>, String) {
    let socket = tokio::net::TcpStream::connect(addr).await.unwrap();
    call_over(socket, path, message).await
}

/// The same over a connection that there is already.
pub(crate) async fn call_over(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    message: &[u8],
) -> (Vec<u8>, String) {
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    // Length-prefixed message: not compressed, u32 length.
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(message);
    body.send_data(Bytes::from(framed), true).unwrap();
    let answer = answer.await.unwrap();
    let status = |headers: &http::HeaderMap| {
        headers
            .get("grpc-status")
            .map(|status| status.to_str().unwrap().to_owned())
    };
    let early = status(answer.headers());
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    let late = body.trailers().await.unwrap().as_ref().and_then(status);
    (bytes, early.or(late).unwrap())
}

#[test]
fn health_and_reflection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let addr = server.addr("grpc");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // HealthCheckResponse { status: SERVING = 1 }
        assert_eq!(
            call(addr, "/grpc.health.v1.Health/Check", &[]).await,
            (vec![0, 0, 0, 0, 2, 0x08, 1], "0".into())
        );
        // HealthCheckRequest { service: "x" }: NOT_FOUND
        assert_eq!(
            call(addr, "/grpc.health.v1.Health/Check", &[0x0a, 1, b'x'])
                .await
                .1,
            "5"
        );
        // ServerReflectionRequest { list_services: "*" }
        let (bytes, status) = call(
            addr,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            &[0x3a, 1, b'*'],
        )
        .await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            status == "0" && text.contains("grpc.health.v1.Health"),
            "{status} {text}"
        );
        assert_eq!(
            call(addr, "/no.such.Service/Call", &[]).await.1,
            "12",
            "UNIMPLEMENTED"
        );
    });
    assert!(server.stop().success());
}
