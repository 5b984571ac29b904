use std::task::Waker;

use tokio::sync::mpsc;

use super::{super::forward::ForwardResult, *};

fn message(bytes: usize) -> v1::RaftMessage {
    let append = v1::Append { payloads: vec![Bytes::from(vec![0; bytes])], ..v1::Append::default() };
    let body = Some(v1::raft_message::Body::Append(append));
    v1::RaftMessage { body, ..v1::RaftMessage::default() }
}

fn established(queue: &PeerQueue) -> ConnectionId {
    let connection = queue.begin();
    assert!(queue.establish(connection));
    connection
}

fn poll(queue: &PeerQueue, connection: ConnectionId) -> Poll<Option<v1::PeerFrame>> {
    queue.poll_frame(connection, &Context::from_waker(Waker::noop()))
}

fn frame(queue: &PeerQueue, connection: ConnectionId) -> v1::PeerFrame {
    match poll(queue, connection) {
        Poll::Ready(Some(frame)) => frame,
        other => panic!("a frame, not {other:?}"),
    }
}

type Answers = mpsc::UnboundedReceiver<(u64, ForwardResult)>;

fn forward(queue: &PeerQueue, id: u64, to: &mpsc::UnboundedSender<(u64, ForwardResult)>) {
    let responder = ForwardResponder::Shared { id, to: to.clone() };
    queue.push_forward(3, Bytes::from_static(b"write"), responder);
}

fn errors(answers: &mut Answers) -> Vec<(u64, ForwardError)> {
    let mut errors = Vec::new();
    while let Ok((id, result)) = answers.try_recv() {
        errors.push((id, result.expect_err("no answer came")));
    }
    errors
}

#[test]
fn everything_that_waits_leaves_in_one_frame() {
    let queue = PeerQueue::default();
    let connection = established(&queue);
    assert!(poll(&queue, connection).is_pending());
    assert_eq!(queue.push(message(10)), Pushed::Queued);
    assert_eq!(queue.push_beats(vec![v1::Beat::default(); 2], Vec::new()), Pushed::Queued);
    assert_eq!(queue.push_beats(vec![v1::Beat::default()], vec![v1::BeatReply::default()]), Pushed::Queued);
    assert_eq!(queue.push(message(20)), Pushed::Queued);
    let frame = frame(&queue, connection);
    assert_eq!((frame.messages.len(), frame.beats.len(), frame.beat_replies.len()), (2, 3, 1));
    assert!(poll(&queue, connection).is_pending());
    assert_eq!(queue.lock().bytes, 0);
}

#[test]
fn frames_are_bounded_and_lose_nothing() {
    let queue = PeerQueue::default();
    let connection = established(&queue);
    for _ in 0..20 {
        assert_eq!(queue.push(message(1 << 20)), Pushed::Queued);
    }
    let mut messages = 0;
    while let Poll::Ready(Some(frame)) = poll(&queue, connection) {
        assert!(prost::Message::encoded_len(&frame) <= FRAME_BYTES_MAX + MESSAGE_BYTES_MAX);
        messages += frame.messages.len();
    }
    assert_eq!(messages, 20);
    assert_eq!(queue.lock().bytes, 0);
}

#[test]
fn a_full_queue_refuses_and_recovers() {
    let queue = PeerQueue::default();
    let connection = established(&queue);
    let mut taken = 0;
    while queue.push(message(1 << 20)) == Pushed::Queued {
        taken += 1;
    }
    assert_eq!(taken, QUEUE_BYTES_MAX / ((1 << 20) + ITEM_BYTES + PAYLOAD_BYTES));
    let (to, mut answers) = mpsc::unbounded_channel();
    let large = Bytes::from(vec![0; 1 << 20]);
    queue.push_forward(0, large, ForwardResponder::Shared { id: 1, to });
    assert_eq!(errors(&mut answers), [(1, ForwardError::Busy)]);
    assert!(!frame(&queue, connection).messages.is_empty());
    assert_eq!(queue.push(message(1 << 20)), Pushed::Queued);
}

#[test]
fn nothing_is_taken_before_both_sides_know_each_other() {
    let queue = PeerQueue::default();
    assert_eq!(queue.push(message(1)), Pushed::NotConnected);
    let connection = queue.begin();
    assert_eq!(queue.push(message(1)), Pushed::NotConnected);
    assert!(!queue.is_connected());
    let (to, mut answers) = mpsc::unbounded_channel();
    forward(&queue, 4, &to);
    assert_eq!(errors(&mut answers), [(4, ForwardError::Unavailable)]);
    assert!(queue.establish(connection));
    assert!(queue.is_connected());
    assert_eq!(queue.push(message(1)), Pushed::Queued);
}

#[test]
fn a_broken_connection_tells_sent_from_unsent_forwards() {
    let queue = PeerQueue::default();
    let connection = established(&queue);
    let (to, mut answers) = mpsc::unbounded_channel();
    forward(&queue, 1, &to);
    forward(&queue, 2, &to);
    let sent = frame(&queue, connection).forwards;
    let reply = v1::ForwardReply { id: sent[0].id, response: Some(v1::ClientResponse::default()) };
    queue.complete(connection, reply);
    assert!(answers.try_recv().expect("answered").1.is_ok());
    forward(&queue, 3, &to);
    assert!(queue.close(connection), "it was established");
    let mut left = errors(&mut answers);
    left.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(left, [(2, ForwardError::Unknown), (3, ForwardError::Unavailable)]);
    assert!(!queue.close(connection), "it is closed already");
    assert!(matches!(poll(&queue, connection), Poll::Ready(None)));
}

#[test]
fn a_newer_connection_takes_over_and_answers_of_the_older_are_void() {
    let queue = PeerQueue::default();
    let older = established(&queue);
    let (to, mut answers) = mpsc::unbounded_channel();
    forward(&queue, 1, &to);
    let sent = frame(&queue, older).forwards;
    let newer = established(&queue);
    assert_eq!(errors(&mut answers), [(1, ForwardError::Unknown)]);
    assert!(matches!(poll(&queue, older), Poll::Ready(None)));
    assert!(!queue.close(older));
    assert!(queue.is_connected());
    let reply = || v1::ForwardReply { id: sent[0].id, response: Some(v1::ClientResponse::default()) };
    queue.complete(older, reply());
    queue.push_reply(older, reply());
    assert!(poll(&queue, newer).is_pending(), "a reply to the older connection goes nowhere");
    queue.push_reply(newer, reply());
    assert_eq!(frame(&queue, newer).forward_replies.len(), 1);
}

#[tokio::test]
async fn a_waiting_stream_is_woken() {
    use tokio_stream::StreamExt as _;

    let queue = Arc::new(PeerQueue::default());
    let connection = established(&queue);
    let mut stream = FrameStream::new(Arc::clone(&queue), connection, v1::Hello::default());
    assert!(stream.next().await.expect("a frame").hello.is_some());
    let reader = tokio::spawn(async move { (stream.next().await, stream.next().await) });
    tokio::task::yield_now().await;
    assert_eq!(queue.push(message(1)), Pushed::Queued);
    while queue.lock().bytes > 0 {
        tokio::task::yield_now().await;
    }
    assert!(queue.close(connection));
    let (first, second) = reader.await.expect("does not panic");
    assert_eq!(first.map(|frame| frame.messages.len()), Some(1));
    assert_eq!(second, None);
}
