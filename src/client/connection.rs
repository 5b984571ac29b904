//! The client and its single writes.

use std::{
    error::Error as _,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kotoba_db_cluster_proto::v1;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::{
    backoff::Backoff,
    channels::{Channels, Service, check_address},
    failure::{self, Reach, RequestName, Trace},
    options::ClientOptions,
    routes::Routes,
    session::{RequestIds, random_client_id},
};
use crate::{
    error::{ClusterError, Effect, ErrorCode},
    limits::CLIENT_ID_BYTES_MAX,
    node::service::convert,
    placement::PartitionId,
};

/// What a write came to. Prints as the entity's CID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The entity's identity: the CID of its first block.
    pub cid: String,
    /// The CID of its content now.
    pub version: String,
    /// Where the entity lives; a write or read that says so saves the cluster a look-up.
    pub partition: PartitionId,
    /// The write's position in the log of that partition.
    pub index: u64,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cid)
    }
}

/// The receipt or the error that a response holds.
pub(super) fn outcome_of(response: v1::ClientResponse) -> Result<Receipt, ClusterError> {
    if !response.success {
        return Err(ClusterError::from_wire(&response.error_code, &response.error_message));
    }
    Ok(Receipt {
        cid: response.result_cid,
        version: response.version_cid,
        partition: PartitionId(response.partition),
        index: response.log_index,
    })
}

/// A connection to a cluster. Cheap to clone; the clones are one session.
#[derive(Clone, Debug)]
pub struct Client {
    session: Arc<Session>,
    pub(super) shared: Arc<Shared>,
}

/// What belongs to one session.
#[derive(Debug)]
struct Session {
    client_id: String,
    ids: Mutex<RequestIds>,
}

impl Session {
    fn new(client_id: Option<String>) -> Result<Self, ClusterError> {
        let client_id = match client_id {
            Some(id) if id.is_empty() || id.len() > CLIENT_ID_BYTES_MAX => {
                let what = format!("a client id has 1 to {CLIENT_ID_BYTES_MAX} bytes, not {}", id.len());
                return Err(ClusterError::new(ErrorCode::TooLarge, what));
            }
            Some(id) => id,
            None => random_client_id()?,
        };
        Ok(Self { client_id, ids: Mutex::default() })
    }
}

/// What all sessions over the same connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: ClientOptions,
    pub(super) channels: Channels,
    routes: Mutex<Routes>,
    /// Where calls that may go anywhere begin; moves on when a node fails.
    preferred: Mutex<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A holder never leaves these small values half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Prepares to talk to the cluster that these nodes (`HOST:PORT`) belong to, and asks one of them
    /// for the others. A cluster that does not answer now is no error yet: every call tries again.
    ///
    /// # Errors
    /// Where an address, the client id or a TLS file cannot be used.
    pub async fn connect(endpoints: Vec<String>, options: ClientOptions) -> Result<Self, ClusterError> {
        let client = Self::unconnected(endpoints, options)?;
        let patience = client.shared.options.connect_timeout;
        // Best effort: without it the first calls take one hop more.
        let _ = timeout(patience, client.refresh()).await;
        Ok(client)
    }

    fn unconnected(endpoints: Vec<String>, options: ClientOptions) -> Result<Self, ClusterError> {
        if endpoints.is_empty() {
            return Err(ClusterError::new(ErrorCode::Usage, "no endpoint was given"));
        }
        endpoints.iter().try_for_each(|endpoint| check_address(endpoint))?;
        let session = Session::new(options.client_id.clone())?;
        let channels = Channels::new(options.connect_timeout, options.tls.as_ref())?;
        let routes = Mutex::new(Routes::new(endpoints));
        let shared = Shared { options, channels, routes, preferred: Mutex::new(0) };
        Ok(Self { session: Arc::new(session), shared: Arc::new(shared) })
    }

    /// Another session over the same connections: of this name, else of a random one.
    ///
    /// # Errors
    /// Where the name is empty or too long.
    pub fn session(&self, client_id: Option<String>) -> Result<Self, ClusterError> {
        Ok(Self { session: Arc::new(Session::new(client_id)?), shared: Arc::clone(&self.shared) })
    }

    /// The session's name.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.session.client_id
    }

    /// Every node's address that the client knows.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.routes().addresses().to_vec()
    }

    /// The partitions of the cluster, where a node has told them.
    #[must_use]
    pub fn partition_count(&self) -> Option<u32> {
        Some(self.routes().partition_count()).filter(|count| *count > 0)
    }

    /// Where the node that is believed to lead a partition listens.
    #[must_use]
    pub fn leader_of(&self, partition: PartitionId) -> Option<String> {
        self.routes().leader_of(partition).map(str::to_owned)
    }

    /// Carries out one write. `partition` is where the entity lives, as its receipt said, where known.
    ///
    /// # Errors
    /// A refusal is definite. [`ErrorCode::UnknownOutcome`]: it may have taken effect. Everything whose
    /// exit status is *unavailable* besides: it has not.
    pub async fn execute(
        &self,
        operation: v1::Operation,
        partition: Option<PartitionId>,
    ) -> Result<Receipt, ClusterError> {
        convert::check_depth(&operation)?;
        let request_id = lock(&self.session.ids).begin();
        let under_way = UnderWay { ids: &self.session.ids, request_id, abandoned: Abandoned::End };
        self.execute_under_way(under_way, operation, partition).await
    }

    /// Carries out one write under a request id of the caller's own, above 0. To repeat a request whose
    /// outcome is unknown, give its id and the same operation, in a session of the same client id: it takes
    /// effect at most once, and what comes back is the first outcome. The session tells the cluster that a
    /// request is done with only when its outcome is known.
    ///
    /// # Errors
    /// As of [`Client::execute`]; an id that was used for another operation.
    pub async fn execute_as(
        &self,
        request_id: u64,
        operation: v1::Operation,
        partition: Option<PartitionId>,
    ) -> Result<Receipt, ClusterError> {
        if request_id == 0 {
            return Err(ClusterError::new(ErrorCode::MalformedValue, "request ids begin at 1"));
        }
        lock(&self.session.ids).begin_as(request_id);
        let under_way = UnderWay { ids: &self.session.ids, request_id, abandoned: Abandoned::Keep };
        self.execute_under_way(under_way, operation, partition).await
    }

    async fn execute_under_way(
        &self,
        mut under_way: UnderWay<'_>,
        operation: v1::Operation,
        partition: Option<PartitionId>,
    ) -> Result<Receipt, ClusterError> {
        let request_id = under_way.request_id;
        let request = v1::ClientRequest {
            client_id: self.session.client_id.clone(),
            request_id,
            operation: Some(operation),
            partition: partition.map(|partition| partition.0),
            ..Default::default()
        };
        let outcome = self.repeat_until_answered(request, partition).await;
        let unknown = outcome.as_ref().is_err_and(|error| error.code().effect() == Effect::Unknown);
        under_way.abandoned = if unknown { Abandoned::Keep } else { Abandoned::End };
        outcome
    }

    async fn repeat_until_answered(
        &self,
        mut request: v1::ClientRequest,
        partition: Option<PartitionId>,
    ) -> Result<Receipt, ClusterError> {
        let began = Instant::now();
        let (mut trace, mut backoff) = (Trace::default(), Backoff::default());
        loop {
            request.acked_below = lock(&self.session.ids).acked_below();
            request.map_epoch = self.routes().epoch();
            let address = self.target(partition);
            match self.attempt_write(&address, request.clone()).await {
                Err(error) if failure::is_retryable(&error) => {
                    trace.note(error);
                    self.avoid(&address);
                }
                settled => return settled,
            }
            let pause = backoff.next();
            let too_late = began.elapsed() + pause >= self.shared.options.deadline;
            if too_late || trace.is_hopeless(self.routes().addresses().len()) {
                let request = RequestName { client_id: &request.client_id, request_id: request.request_id };
                return Err(trace.give_up(began.elapsed(), &request));
            }
            sleep(pause).await;
        }
    }

    async fn attempt_write(
        &self,
        address: &str,
        request: v1::ClientRequest,
    ) -> Result<Receipt, ClusterError> {
        self.greet(address).await?;
        let mut service = self.shared.channels.service(address)?;
        let call = service.execute_operation(request);
        let response = match timeout(self.shared.options.attempt_timeout, call).await {
            Err(_) => return Err(no_answer(address, ErrorCode::UnknownOutcome)),
            Ok(Err(status)) => return Err(self.failed(&status, address).await),
            Ok(Ok(response)) => response.into_inner(),
        };
        if response.success || !response.leader_address.is_empty() {
            self.routes().learn_leader(PartitionId(response.partition), &response.leader_address);
        }
        outcome_of(response)
    }

    /// Asks nodes, one after the other, until one answers.
    pub(super) async fn ask<T, C, F>(
        &self,
        partition: Option<PartitionId>,
        call: C,
    ) -> Result<T, ClusterError>
    where
        C: Fn(Service) -> F,
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let began = Instant::now();
        let (mut trace, mut backoff) = (Trace::default(), Backoff::default());
        loop {
            let address = self.target(partition);
            match self.ask_node(&address, &call).await {
                Err(error) if failure::is_retryable(&error) => trace.note(error),
                settled => return settled,
            }
            self.avoid(&address);
            let pause = backoff.next();
            let too_late = began.elapsed() + pause >= self.shared.options.deadline;
            if too_late || trace.is_hopeless(self.routes().addresses().len()) {
                return Err(failure::unanswered_read(trace.into_last(), began.elapsed()));
            }
            sleep(pause).await;
        }
    }

    /// Makes sure that a node accepts this side before it is sent anything that takes effect.
    pub(super) async fn greet(&self, address: &str) -> Result<(), ClusterError> {
        if !self.shared.channels.may_be_refused(address) {
            return Ok(());
        }
        let call = |mut service: Service| async move {
            service.get_cluster_config(v1::GetClusterConfigRequest {}).await
        };
        self.ask_node(address, &call).await.map(drop)
    }

    /// Asks this one node once.
    pub(super) async fn ask_node<T, C, F>(&self, address: &str, call: &C) -> Result<T, ClusterError>
    where
        C: Fn(Service) -> F,
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let service = self.shared.channels.service(address)?;
        match timeout(self.shared.options.attempt_timeout, call(service)).await {
            Err(_) => Err(no_answer(address, ErrorCode::Unavailable)),
            Ok(Err(status)) => Err(self.failed(&status, address).await),
            Ok(Ok(response)) => {
                self.shared.channels.has_answered(address);
                Ok(response.into_inner())
            }
        }
    }

    /// The error behind a failed call. A connection that ended may have ended for want of TLS, which the
    /// call itself does not tell. One who speaks TLS only cannot have taken what was sent without it.
    async fn failed(&self, status: &Status, address: &str) -> ClusterError {
        let error = failure::from_status(status, address);
        let never_taken = match failure::how_far(status) {
            Reach::ClosedBeforeSending => true,
            Reach::PerhapsSent => {
                let channels = &self.shared.channels;
                status.source().is_some() && (!channels.is_secure() || channels.may_be_refused(address))
            }
            Reach::NoConnection | Reach::NoSecureConnection => false,
        };
        if never_taken && let Some(reason) = self.shared.channels.why_closed(address).await {
            return ClusterError::new(ErrorCode::Tls, format!("node {address} {reason}"));
        }
        error
    }

    /// How many partitions the cluster has. Waits for a node that knows.
    ///
    /// # Errors
    /// No answer within the deadline.
    pub async fn partitions(&self) -> Result<u32, ClusterError> {
        let call = |mut service: Service| async move {
            let config = service.get_cluster_config(v1::GetClusterConfigRequest {}).await?;
            match config.get_ref().partition_count {
                0 => Err(Status::unavailable("the node is in no cluster yet")),
                _ => Ok(config),
            }
        };
        let config = self.ask(None, call).await?;
        self.routes().learn(&config);
        Ok(config.partition_count)
    }

    /// Learns nodes, partitions and leaders anew.
    ///
    /// # Errors
    /// Where no node answers.
    pub async fn refresh(&self) -> Result<v1::ClusterConfig, ClusterError> {
        let mut last = None;
        for address in self.addresses_to_try() {
            let call = |mut service: Service| async move {
                service.get_cluster_config(v1::GetClusterConfigRequest {}).await
            };
            match self.ask_node(&address, &call).await {
                Ok(config) => {
                    self.routes().learn(&config);
                    return Ok(config);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(failure::unanswered_read(last, self.shared.options.attempt_timeout))
    }

    pub(super) fn routes(&self) -> MutexGuard<'_, Routes> {
        lock(&self.shared.routes)
    }

    /// Every node's address, those first that answered so far.
    pub(super) fn addresses_to_try(&self) -> Vec<String> {
        let mut addresses = self.addresses();
        let first = *lock(&self.shared.preferred) % addresses.len();
        addresses.rotate_left(first);
        addresses
    }

    fn target(&self, partition: Option<PartitionId>) -> String {
        let routes = self.routes();
        if let Some(leader) = partition.and_then(|partition| routes.leader_of(partition)) {
            return leader.to_owned();
        }
        let addresses = routes.addresses();
        addresses[*lock(&self.shared.preferred) % addresses.len()].clone()
    }

    /// After a failed attempt: the next one goes elsewhere.
    pub(super) fn avoid(&self, address: &str) {
        let mut routes = self.routes();
        routes.distrust(address);
        let mut preferred = lock(&self.shared.preferred);
        let count = routes.addresses().len();
        if routes.addresses()[*preferred % count] == address {
            *preferred = (*preferred + 1) % count;
        }
    }
}

fn no_answer(address: &str, code: ErrorCode) -> ClusterError {
    ClusterError::new(code, format!("node {address} did not answer in time"))
}

/// What becomes of a request id whose call ends.
#[derive(Clone, Copy, Debug)]
enum Abandoned {
    /// Nobody will send it again.
    End,
    /// Its outcome is not known, and may be asked for again.
    Keep,
}

/// Settles a request id, also where the caller drops the call half way.
struct UnderWay<'a> {
    ids: &'a Mutex<RequestIds>,
    request_id: u64,
    abandoned: Abandoned,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut ids = lock(self.ids);
        match self.abandoned {
            Abandoned::End => ids.end(self.request_id),
            Abandoned::Keep => ids.give_up(self.request_id),
        }
    }
}
