//! Echo: `echo` prints an invite and waits; `echo INVITE` says hello to it.
#![allow(clippy::print_stdout, reason = "a program prints")]
use baran::{Node, PeerAddr, SessionError};
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder().spawn().await?;
    if let Some(peer) = std::env::args().nth(1) {
        let connection = node.connect(peer.parse::<PeerAddr>()?, "echo/1").await?;
        let (mut send, mut recv) = connection.open_bi().await?;
        send.write_all(b"hello, peer").await?;
        send.finish()?;
        println!("{}", String::from_utf8(recv.read_to_end(1024).await?)?);
        connection.close(0, "done").await;
    } else {
        println!("echo {}", node.invite().to_invite());
        let mut acceptor = node.accept("echo/1")?;
        while let Some(connection) = acceptor.next().await {
            tokio::spawn(async move {
                let (mut send, mut recv) = connection.accept_bi().await?;
                tokio::io::copy(&mut recv, &mut send).await.ok();
                send.finish()?;
                connection.close(0, "done").await;
                Ok::<(), SessionError>(())
            });
        }
    }
    node.close().await;
    Ok(())
}
