use openraft_rt_sim::SimRuntime;
use quorate_limits::Request;

use super::*;

#[test]
fn empty_nodes_found_a_cluster_and_decide() {
    SimRuntime::with_seed(1).block_on(async {
        let shape = Shape {
            founders: 3,
            latecomers: 0,
            rates: vec![1000; 3],
            policies: Vec::new(),
            tuning: Tuning::default(),
            replacing: Replacing::default(),
            slow_disks_permille: 0,
        };
        let world = World::new(shape, Arc::new(Mutex::new(History::begin())));
        for host in 0..3 {
            world.start(host).await;
        }
        let ready =
            |world: &World| world.all_running().iter().all(|running| running.node.ready().is_ok()).then_some(());
        world.eventually(Duration::from_secs(10), ready).await.unwrap();
        for running in world.all_running() {
            let verdict = running.node.decide(&Request::of_client("a"), Duration::from_secs(1)).await.unwrap();
            assert!(verdict.admitted);
        }
        assert_eq!(world.history().violation(), None);
    });
}
