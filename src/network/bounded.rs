//! A limit on what a server sends before its answer is complete: between two writes to it, no more than a head may have. One that
//! sends interim responses without end would otherwise keep the thread busy that others need.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::Service;

use super::http::PolicyConnector;

/// How much a server may send between two writes, in bytes: its head, interim responses before it, and a body that is short or that
/// nobody reads to its end. The handshake of TLS is less.
const MAX_ANSWER: usize = 64 << 10;

/// A connection with the limit.
pub struct Bounded<S> {
    stream: S,
    left: usize,
}

impl<S> Bounded<S> {
    /// Limits a new connection.
    pub fn new(stream: S) -> Self {
        Self { stream, left: MAX_ANSWER }
    }

    /// Notes what was written.
    fn wrote(&mut self, written: io::Result<usize>) -> io::Result<usize> {
        self.left = MAX_ANSWER;
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            let error = "the server sends too much before its answer is complete";
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, error)));
        }
        let left = self.left;
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(left.min(buffer.remaining())));
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        self.left -= read;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, data));
        Poll::Ready(self.wrote(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, data));
        Poll::Ready(self.wrote(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Connection> Connection for Bounded<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

/// Connects with the limit, below TLS.
#[derive(Clone)]
pub struct BoundedConnector(pub PolicyConnector);

impl Service<Uri> for BoundedConnector {
    type Response = TokioIo<Bounded<TcpStream>>;
    type Error = <PolicyConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { Ok(TokioIo::new(Bounded::new(connecting.await?.into_inner()))) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn each_write_allows_an_answer_of_limited_length() {
        let (client, mut server) = tokio::io::duplex(4 * MAX_ANSWER);
        let mut client = Bounded::new(client);
        server.write_all(&vec![b'a'; 2 * MAX_ANSWER]).await.unwrap();
        let mut read = vec![0; MAX_ANSWER];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);
        client.write_all(b"next").await.unwrap();
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
