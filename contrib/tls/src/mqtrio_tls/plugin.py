"""The plugin that brings the layer; the schemes mqtts:// and wss:// enable it."""

from collections.abc import Mapping

import mqtrio
from mqtrio_tls.contexts import client_context, server_context
from mqtrio_tls.layer import TlsLayer
from mqtrio_tls.settings import TlsClient, TlsListener


class Tls(mqtrio.Plugin[None]):
    """Brings the layer `tls`."""

    api = 1

    @classmethod
    @mqtrio.hookimpl
    def layers(cls, event: mqtrio.LayersEvent) -> Mapping[str, mqtrio.LayerProvider]:
        """The layer under the name that listeners' schemes ask for."""
        return {
            "tls": mqtrio.LayerProvider(
                settings=TlsListener,
                server=server,
                client_settings=TlsClient,
                client=client,
            )
        }


def server(options: TlsListener) -> mqtrio.LayerFactory:
    """Read the files of a listener; ConfigurationError says what is wrong with them."""
    context = server_context(options)
    return lambda: TlsLayer(context, server_side=True)


def client(options: TlsClient, host: str) -> mqtrio.LayerFactory:
    """Read the files of connections to a host; raises ConfigurationError."""
    context = client_context(options)
    name = options.server_name or host
    return lambda: TlsLayer(context, server_side=False, server_name=name)
