//! Programs that people put before a limiter, Envoy and nginx, run by the recipes in `docs/doors/recipes` and by
//! `compose/nginx.conf`, with addresses of a test's own in place of those to be changed.
//!
//! The binaries are those that `ENVOY_BIN`, `NGINX_BIN` and `K6_BIN` name; `tests/doors.sh` fetches them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::cluster::{Cluster, PATIENCE, eventually};

/// How long it may take a program to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A recipe, as people are to copy it.
///
/// # Panics
/// There is none of that name.
#[must_use]
pub fn recipe(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/doors/recipes").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What answers behind the program: 200, with the words `hello` and the request's path.
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Backend {
    /// Starts it on a spare address of the cluster's.
    ///
    /// # Panics
    /// It cannot listen there.
    pub async fn start(cluster: &Cluster) -> Self {
        let address = (cluster.spare_address(100), 8000).into();
        let listener = TcpListener::bind(address).await.expect("nobody listens there");
        let hello = async |_: HeaderMap, uri: axum::http::Uri| format!("hello {}", uri.path());
        let task = tokio::spawn(async move {
            axum::serve(listener, Router::new().fallback(hello)).await.expect("it serves");
        });
        Self { address, task }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A recipe whose places are being changed.
struct Recipe {
    text: String,
}

impl Recipe {
    fn of(name: &str) -> Self {
        Self { text: recipe(name) }
    }

    /// nginx before the nodes of `compose.yaml`.
    fn of_compose() -> Self {
        Self { text: include_str!("../../compose/nginx.conf").to_owned() }
    }

    /// Changes what must be there exactly once.
    fn change(mut self, place: &str, with: &str) -> Self {
        assert_eq!(self.text.matches(place).count(), 1, "{place:?} once in\n{}", self.text);
        self.text = self.text.replace(place, with);
        self
    }

    /// Puts the nodes asked in the places of the recipe's three; when there are fewer, some of them more than once.
    fn nodes(self, nodes: &[SocketAddr], place: impl Fn(&SocketAddr) -> String, ports: [u16; 3]) -> Self {
        ports.iter().zip(nodes.iter().cycle()).fold(self, |recipe, (port, node)| {
            let theirs = SocketAddr::from(([127, 0, 0, 1], *port));
            recipe.change(&place(&theirs), &place(node))
        })
    }

    /// Makes these changes too, and writes it down.
    fn write(self, more: &[(&str, &str)], file: &Path) {
        let recipe = more.iter().fold(self, |recipe, (place, with)| recipe.change(place, with));
        std::fs::write(file, recipe.text).expect("the recipe is written");
    }
}

/// A running Envoy or nginx; it ends with this.
pub struct Program {
    /// Where it takes requests.
    pub address: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Envoy by a recipe that asks `nodes`. Several in one cluster need numbers of their own, from 0.
    pub async fn envoy(
        cluster: &Cluster,
        number: u8,
        name: &str,
        backend: &Backend,
        nodes: &[SocketAddr],
        more: &[(&str, &str)],
    ) -> Self {
        let address = SocketAddr::from((cluster.spare_address(110 + number), 10000));
        let place = |at: &SocketAddr| format!("{{address: {}, port_value: {}}}", at.ip(), at.port());
        let ports = if recipe(name).contains("20201") { [20201, 20202, 20203] } else { [20001, 20002, 20003] };
        let recipe = Recipe::of(name)
            .change("{address: 0.0.0.0, port_value: 10000}", &place(&address))
            .change("{address: 127.0.0.1, port_value: 8000}", &place(&backend.address))
            .nodes(nodes, place, ports);
        let file = cluster.dir().join(format!("envoy-{number}.yaml"));
        recipe.write(more, &file);
        let mut command = Command::new(binary("ENVOY_BIN"));
        command.arg("-c").arg(file).args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]);
        Self::start(command, address, cluster.dir().join(format!("envoy-{number}.log"))).await
    }

    /// nginx by a recipe that asks `nodes`.
    pub async fn nginx(
        cluster: &Cluster,
        number: u8,
        name: &str,
        backend: &Backend,
        nodes: &[SocketAddr],
        more: &[(&str, &str)],
    ) -> Self {
        let address = SocketAddr::from((cluster.spare_address(120 + number), 8080));
        let recipe = Recipe::of(name)
            .change("listen 8080;", &format!("listen {address};"))
            .change("server 127.0.0.1:8000;", &format!("server {};", backend.address))
            .nodes(nodes, |at| format!("server {at};"), [20001, 20002, 20003]);
        Self::start_nginx(cluster, number, address, recipe, more).await
    }

    /// nginx on port 9999, as in `compose.yaml`, before `nodes`; one a cluster.
    pub async fn nginx_of_compose(cluster: &Cluster, nodes: &[SocketAddr]) -> Self {
        let number = 9;
        let address = SocketAddr::from((cluster.spare_address(120 + number), 9999));
        let recipe = Recipe::of_compose().change("listen 9999;", &format!("listen {address};"));
        let recipe = (1..).zip(nodes).fold(recipe, |recipe, (limiter, node)| {
            recipe.change(&format!("server limiter-{limiter}:20001;"), &format!("server {node};"))
        });
        Self::start_nginx(cluster, number, address, recipe, &[]).await
    }

    async fn start_nginx(
        cluster: &Cluster,
        number: u8,
        address: SocketAddr,
        recipe: Recipe,
        more: &[(&str, &str)],
    ) -> Self {
        let dir = cluster.dir().join(format!("nginx-{number}"));
        std::fs::create_dir(&dir).expect("a folder for nginx");
        // Its workers are another user, who may not look into the cluster's folder, and need not.
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let folders = places.map(|what| format!("{what}_temp_path {}/{what};\n", dir.display())).concat();
        let recipe = recipe.change("http {\n", &format!("http {{\naccess_log off;\n{folders}"));
        let file = dir.join("nginx.conf");
        recipe.write(more, &file);
        let mut command = Command::new(binary("NGINX_BIN"));
        let globals = format!("daemon off; pid {}/pid; error_log stderr;", dir.display());
        command.arg("-p").arg(&dir).arg("-c").arg(file).arg("-e").arg("stderr").arg("-g").arg(globals);
        Self::start(command, address, dir.join("log")).await
    }

    async fn start(mut command: Command, address: SocketAddr, log: PathBuf) -> Self {
        let out = std::fs::File::create(&log).expect("the log opens");
        let child =
            command.stdin(Stdio::null()).stdout(out.try_clone().expect("the log opens twice")).stderr(out).spawn();
        let mut program = Self { address, child: child.expect("it starts"), log };
        eventually(PATIENCE, "it listens", async || {
            if let Ok(Some(status)) = program.child.try_wait() {
                panic!("it ended with {status}:\n{}", program.log());
            }
            TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        program
    }

    /// A new connection of a client of this name.
    #[must_use]
    pub fn client(&self, id: &str) -> Client {
        Client::new(self.address).header("x-client-id", id.as_bytes())
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Asked, nginx ends its workers; killed, it would leave them behind.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let asked = std::time::Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > END_TIMEOUT {
                let _ = self.child.kill();
            }
            std::thread::yield_now();
        }
        if std::thread::panicking() {
            eprintln!("--- the log of the program at {}\n{}", self.address, self.log());
        }
    }
}

/// The program that a variable of the environment names.
///
/// # Panics
/// It names none.
#[must_use]
pub fn binary(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{variable} names no program: run these tests with `make test-doors`"))
}
