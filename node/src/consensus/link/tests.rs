use std::sync::atomic::AtomicU64;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use quorate_limits::{Batch, ClusterTime, Part, SessionId, StateMachine};

use super::*;
use crate::gossip::{ContactList, DnsContacts, Peer, UdpDatagrams};
use crate::platform::Tokio;

const CLUSTER: ClusterId = ClusterId(7);
const ME: u64 = 1;
const OTHER: u64 = 2;
/// The latest run of the other node that the log knows of.
const LATEST: Run = Run { boot: 5, name: 9 };

/// The other node: it answers everything as this run, and counts what it is told of its disk.
#[derive(Default)]
struct Other {
    run: Mutex<Run>,
    told: AtomicU64,
}

impl Transport for Other {
    fn call(&self, _: &str, _: Lane, frame: Bytes) -> BoxFuture<'static, io::Result<Bytes>> {
        let (envelope, _) = Envelope::open(frame).unwrap();
        if envelope.kind == Kind::OlderDisk {
            self.told.fetch_add(1, Ordering::SeqCst);
        }
        let answer = wire::encode_answer(*lock(&self.run), &Ok(Bytes::from_static(b"an answer")));
        async move { Ok(answer) }.boxed()
    }
}

/// The link of node 1 to the other.
async fn link(other: &Arc<Other>) -> Link<Tokio> {
    let datagrams = UdpDatagrams::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let me = Peer {
        node: ME,
        boot: 1,
        version: 0,
        name: "node-1".to_owned(),
        cluster: Some(CLUSTER),
        gossip_address: datagrams.local_addr().unwrap(),
        raft_address: "127.0.0.1:1".to_owned(),
    };
    let contacts = DnsContacts::new(ContactList::default(), None).unwrap();
    let gossip = Gossip::start(me, Arc::new(datagrams), Arc::new(contacts)).unwrap();
    let transport: Arc<dyn Transport> = Arc::<Other>::clone(other);
    let link = Link::new(ME, Run { boot: 1, name: 1 }, Some(CLUSTER), transport, gossip);
    link.learn(OTHER, &Member { name: "node-2".to_owned(), address: "127.0.0.1:2".to_owned() });
    let mut machine = StateMachine::default();
    let session = Part::OpenSession { node: OTHER, run: LATEST, session: SessionId(1) };
    machine.apply(&Batch { stamp: ClusterTime::default(), parts: vec![session] });
    link.judge_by(Arc::new(State::new(machine)));
    link
}

async fn call(link: &Link<Tokio>) -> Result<Bytes, CallError> {
    link.call(OTHER, Kind::Status, Lane::Control, &[], Duration::from_secs(9)).await
}

#[tokio::test]
async fn frames_and_answers_of_a_run_older_than_the_latest_known_do_not_count() {
    let other = Arc::new(Other::default());
    let link = link(&other).await;
    for (run, is_older) in [
        (Run { boot: 4, name: 9 }, true),
        (Run { boot: 5, name: 8 }, true),
        (LATEST, false),
        (Run { boot: 6, name: 1 }, false),
    ] {
        assert_eq!(link.judge_sender(OTHER, run).is_some(), is_older, "a frame of {run:?}");
        *lock(&other.run) = run;
        match call(&link).await {
            Ok(_) => assert!(!is_older, "an answer of {run:?}"),
            Err(CallError::OlderDisk(OTHER)) => assert!(is_older, "an answer of {run:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(link.older_disk_frames(), 4);
    assert_eq!(link.judge_sender(3, Run::default()), None, "nothing is known of its runs");
}

#[tokio::test]
async fn node_that_answers_from_an_older_disk_is_told_so() {
    let other = Arc::new(Other::default());
    let link = link(&other).await;
    assert!(call(&link).await.is_err());
    assert_eq!(other.told.load(Ordering::SeqCst), 1);
}
