"""`serve run tallyformer.serving.ray_app:app models=sft=FOLDER`: the server on Ray Serve."""

# `app` is built by Ray, which reads its annotation as a class: no postponed annotations here.

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from starlette.types import ASGIApp

from tallyformer.server.app import create_app, served_models
from tallyformer.serving.arguments import RayArguments
from tallyformer.serving.coalescing import Coalesced

_UNTIL_KILLED = 10.0
"""Seconds behind `shutdown_grace` before Ray kills a replica that still answers."""
_RETRY_AFTER = 2.0


class Replica:
    """One process with the models of the settings: the application of `tallyformer serve`.

    Args:
        arguments: all of them.

    Raises:
        UsageError: the file of keys cannot be used.
    """

    def __init__(self, arguments: RayArguments) -> None:
        self._arguments = arguments
        self._models = served_models(arguments)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What Ray Serve asks for once it has made this."""
        served = create_app(self._arguments, self._models)
        return Coalesced(served, seconds=self._arguments.yield_seconds)

    async def check_health(self) -> None:
        """Ray sends requests from the first time on that this returns.

        Raises:
            TallyFormerError: a model cannot be loaded.
        """
        await self._models.until_ready()


_DEPLOYMENT = serve.deployment(name="TallyFormer")(serve.ingress()(Replica))


def app(arguments: RayArguments) -> Application:
    """The application, with typed arguments.

    Args:
        arguments: from `serve run ... NAME=VALUE`, or `args` of a Serve config file.
    """
    scaling = AutoscalingConfig(
        min_replicas=arguments.min_replicas,
        max_replicas=arguments.max_replicas,
        target_ongoing_requests=arguments.answers_per_replica,
        upscale_delay_s=arguments.upscale_seconds,
        downscale_delay_s=arguments.downscale_seconds,
        look_back_period_s=arguments.look_back_seconds,
    )
    deployment = _DEPLOYMENT.options(
        autoscaling_config=scaling,
        max_ongoing_requests=arguments.most_answers_per_replica,
        max_queued_requests=arguments.max_waiting,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=_RETRY_AFTER),
        graceful_shutdown_timeout_s=arguments.shutdown_grace + _UNTIL_KILLED,
        graceful_shutdown_wait_loop_s=0.5,
        ray_actor_options={"num_cpus": arguments.cores, "num_gpus": arguments.gpus},
    )
    return deployment.bind(arguments)
