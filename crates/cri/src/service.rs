//! tonic's side: which call is detached, which ends with its caller.

use std::future::Future;
use std::pin::Pin;

use api::cri as wire;
use futures_util::{Stream, StreamExt};
use grpc::cri::image_service_server::ImageService;
use grpc::cri::runtime_service_server::RuntimeService;
use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status};
use types::{Error, Result};

use crate::cri::{Change, Cri};
use crate::timers::Timer;
use crate::{image, runtime};

/// What a stream of answers is to tonic.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

tokio::task_local! {
    /// Closed when nobody waits for the answer of a change any more.
    static CALLER: watch::Receiver<()>;
}

/// Ends when whoever has asked for the change that this is a part of waits no more. Never, where there is no such change. Cancel safe.
pub(crate) async fn caller_gone() {
    match CALLER.try_with(Clone::clone) {
        Ok(mut caller) => drop(caller.changed().await),
        Err(_) => std::future::pending().await,
    }
}

fn status(error: &Error) -> Status {
    Status::new(tonic::Code::from_i32(api::status::code(error.class())), error.to_string())
}

impl Cri {
    /// Runs a call that its caller cannot stop half-way.
    async fn detached<T: Send + 'static>(
        &self,
        change: Change,
        run: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let (_here, caller) = watch::channel(());
        let what = change.what;
        let run = async move {
            let done = run.await;
            let told = done.as_ref().map(drop).map_err(|error| Error::new(error.class(), error.to_string()));
            // Nobody waits any more: the change stands all the same.
            drop(answer.send(done));
            told
        };
        (self.doors.spawn)(change, Box::pin(CALLER.scope(caller, run)));
        answered.await.unwrap_or_else(|_| Err(Error::internal(format!("{what} panicked"))))
    }
}

/// A service: calls that only look or wait, which end with their caller; calls that change something, which do not; calls whose
/// answer is a stream.
macro_rules! serve {
    ($service:ident in $room:ident {
        look { $($look:ident: $look_request:ident -> $look_response:ident;)* }
        change { $($change:ident: $change_request:ident -> $change_response:ident, $what:literal of $field:ident;)* }
        stream { $($stream:ident: $stream_request:ident -> $answers:ident of $stream_response:ident;)* }
    }) => {
        #[tonic::async_trait]
        impl $service for Cri {
            $(async fn $look(
                &self,
                request: Request<wire::$look_request>,
            ) -> Result<Response<wire::$look_response>, Status> {
                let timer = Timer::begin(self, stringify!($look), "");
                let answer = match self.check_recovered() {
                    Ok(()) => $room::$look::run(self, request.into_inner()).await,
                    Err(error) => Err(error),
                };
                if let (Ok(_), Some(timer)) = (&answer, timer) {
                    timer.end(self);
                }
                answer.map(Response::new).map_err(|error| status(&error))
            })*

            $(async fn $change(
                &self,
                request: Request<wire::$change_request>,
            ) -> Result<Response<wire::$change_response>, Status> {
                self.check_recovered().map_err(|error| status(&error))?;
                let (cri, request) = (self.clone(), request.into_inner());
                let change = Change { what: $what, id: request.$field.told() };
                let timer = Timer::begin(self, stringify!($change), &change.id);
                let run = async move {
                    let done = $room::$change::run(&cri, request).await;
                    if let (Ok(_), Some(timer)) = (&done, timer) {
                        timer.end(&cri);
                    }
                    done
                };
                self.detached(change, run).await.map(Response::new).map_err(|error| status(&error))
            })*

            $(type $answers = Answers<wire::$stream_response>;

            async fn $stream(
                &self,
                request: Request<wire::$stream_request>,
            ) -> Result<Response<Self::$answers>, Status> {
                self.check_recovered().map_err(|error| status(&error))?;
                let answers = $room::$stream::run(self, request.into_inner()).await;
                let answers = answers.map_err(|error| status(&error))?;
                Ok(Response::new(Box::pin(answers.map(|answer| answer.map_err(|error| status(&error))))))
            })*
        }
    };
}

/// What a change is of, in one word.
trait Told {
    fn told(&self) -> String;
}

impl Told for String {
    fn told(&self) -> String {
        self.clone()
    }
}

impl Told for Option<wire::PodSandboxConfig> {
    fn told(&self) -> String {
        let metadata = self.as_ref().and_then(|config| config.metadata.as_ref());
        metadata.map(|metadata| format!("{}/{}", metadata.namespace, metadata.name)).unwrap_or_default()
    }
}

impl Told for Option<wire::ImageSpec> {
    fn told(&self) -> String {
        self.as_ref().map(|image| image.image.clone()).unwrap_or_default()
    }
}

impl Told for Option<wire::RuntimeConfig> {
    fn told(&self) -> String {
        String::new()
    }
}

serve! { RuntimeService in runtime {
    look {
        version: VersionRequest -> VersionResponse;
        pod_sandbox_status: PodSandboxStatusRequest -> PodSandboxStatusResponse;
        list_pod_sandbox: ListPodSandboxRequest -> ListPodSandboxResponse;
        list_containers: ListContainersRequest -> ListContainersResponse;
        container_status: ContainerStatusRequest -> ContainerStatusResponse;
        exec_sync: ExecSyncRequest -> ExecSyncResponse;
        exec: ExecRequest -> ExecResponse;
        attach: AttachRequest -> AttachResponse;
        port_forward: PortForwardRequest -> PortForwardResponse;
        container_stats: ContainerStatsRequest -> ContainerStatsResponse;
        list_container_stats: ListContainerStatsRequest -> ListContainerStatsResponse;
        pod_sandbox_stats: PodSandboxStatsRequest -> PodSandboxStatsResponse;
        list_pod_sandbox_stats: ListPodSandboxStatsRequest -> ListPodSandboxStatsResponse;
        status: StatusRequest -> StatusResponse;
        list_metric_descriptors: ListMetricDescriptorsRequest -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics: ListPodSandboxMetricsRequest -> ListPodSandboxMetricsResponse;
        runtime_config: RuntimeConfigRequest -> RuntimeConfigResponse;
    }
    change {
        run_pod_sandbox: RunPodSandboxRequest -> RunPodSandboxResponse, "RunPodSandbox" of config;
        stop_pod_sandbox: StopPodSandboxRequest -> StopPodSandboxResponse, "StopPodSandbox" of pod_sandbox_id;
        remove_pod_sandbox: RemovePodSandboxRequest -> RemovePodSandboxResponse, "RemovePodSandbox" of pod_sandbox_id;
        create_container: CreateContainerRequest -> CreateContainerResponse, "CreateContainer" of pod_sandbox_id;
        start_container: StartContainerRequest -> StartContainerResponse, "StartContainer" of container_id;
        stop_container: StopContainerRequest -> StopContainerResponse, "StopContainer" of container_id;
        remove_container: RemoveContainerRequest -> RemoveContainerResponse, "RemoveContainer" of container_id;
        update_container_resources: UpdateContainerResourcesRequest -> UpdateContainerResourcesResponse, "UpdateContainerResources" of container_id;
        reopen_container_log: ReopenContainerLogRequest -> ReopenContainerLogResponse, "ReopenContainerLog" of container_id;
        update_runtime_config: UpdateRuntimeConfigRequest -> UpdateRuntimeConfigResponse, "UpdateRuntimeConfig" of runtime_config;
        checkpoint_container: CheckpointContainerRequest -> CheckpointContainerResponse, "CheckpointContainer" of container_id;
        update_pod_sandbox_resources: UpdatePodSandboxResourcesRequest -> UpdatePodSandboxResourcesResponse, "UpdatePodSandboxResources" of pod_sandbox_id;
    }
    stream {
        stream_pod_sandboxes: StreamPodSandboxesRequest -> StreamPodSandboxesStream of StreamPodSandboxesResponse;
        stream_containers: StreamContainersRequest -> StreamContainersStream of StreamContainersResponse;
        stream_container_stats: StreamContainerStatsRequest -> StreamContainerStatsStream of StreamContainerStatsResponse;
        stream_pod_sandbox_stats: StreamPodSandboxStatsRequest -> StreamPodSandboxStatsStream of StreamPodSandboxStatsResponse;
        get_container_events: GetEventsRequest -> GetContainerEventsStream of ContainerEventResponse;
        stream_pod_sandbox_metrics: StreamPodSandboxMetricsRequest -> StreamPodSandboxMetricsStream of StreamPodSandboxMetricsResponse;
    }
} }

serve! { ImageService in image {
    look {
        list_images: ListImagesRequest -> ListImagesResponse;
        image_status: ImageStatusRequest -> ImageStatusResponse;
        pull_image: PullImageRequest -> PullImageResponse;
        image_fs_info: ImageFsInfoRequest -> ImageFsInfoResponse;
    }
    change {
        remove_image: RemoveImageRequest -> RemoveImageResponse, "RemoveImage" of image;
    }
    stream {
        stream_images: StreamImagesRequest -> StreamImagesStream of StreamImagesResponse;
    }
} }
