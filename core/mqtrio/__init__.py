"""mqtrio: a plugin-extensible MQTT broker framework on Trio.

    async with mqtrio.open_broker("mqtt://127.0.0.1:1883") as broker:
        await broker.publish("greeting", "hello", retain=True)

Names are loaded when they are first used, so that `mqtrio.wire` alone needs neither Trio nor the
broker.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqtrio.broker import Broker as Broker
    from mqtrio.config import Configuration as Configuration
    from mqtrio.config import PluginSpec as PluginSpec
    from mqtrio.config import load_config as load_config
    from mqtrio.config import read_settings as read_settings
    from mqtrio.engine.subscriber import ReceivedMessage as ReceivedMessage
    from mqtrio.engine.subscriber import Subscriber as Subscriber
    from mqtrio.errors import BrokerStopped as BrokerStopped
    from mqtrio.errors import ConfigurationError as ConfigurationError
    from mqtrio.errors import MqtrioError as MqtrioError
    from mqtrio.errors import PluginError as PluginError
    from mqtrio.errors import PluginFailed as PluginFailed
    from mqtrio.errors import ProtocolError as ProtocolError
    from mqtrio.errors import RefusedError as RefusedError
    from mqtrio.errors import StoreError as StoreError
    from mqtrio.errors import StoreFull as StoreFull
    from mqtrio.fields import required_setting as required_setting
    from mqtrio.fields import setting as setting
    from mqtrio.hooks.answers import Allow as Allow
    from mqtrio.hooks.answers import Challenge as Challenge
    from mqtrio.hooks.answers import ClientLimits as ClientLimits
    from mqtrio.hooks.answers import Close as Close
    from mqtrio.hooks.answers import ConnectionProperties as ConnectionProperties
    from mqtrio.hooks.answers import Deny as Deny
    from mqtrio.hooks.answers import Drop as Drop
    from mqtrio.hooks.answers import Permissions as Permissions
    from mqtrio.hooks.answers import Reject as Reject
    from mqtrio.hooks.answers import Throttle as Throttle
    from mqtrio.hooks.calls import CallStatistics as CallStatistics
    from mqtrio.hooks.client import ClientFacts as ClientFacts
    from mqtrio.hooks.client import ConnectionSlot as ConnectionSlot
    from mqtrio.hooks.client import MessageSlot as MessageSlot
    from mqtrio.hooks.credentials import PeerCredentials as PeerCredentials
    from mqtrio.hooks.events import AcceptEvent as AcceptEvent
    from mqtrio.hooks.events import AcknowledgedEvent as AcknowledgedEvent
    from mqtrio.hooks.events import AdmitEvent as AdmitEvent
    from mqtrio.hooks.events import AuthenticateEvent as AuthenticateEvent
    from mqtrio.hooks.events import ChangedMessage as ChangedMessage
    from mqtrio.hooks.events import ClientConnectedEvent as ClientConnectedEvent
    from mqtrio.hooks.events import ClientDisconnectedEvent as ClientDisconnectedEvent
    from mqtrio.hooks.events import ConnectionRefusedEvent as ConnectionRefusedEvent
    from mqtrio.hooks.events import DeliveredEvent as DeliveredEvent
    from mqtrio.hooks.events import DeliveryEvent as DeliveryEvent
    from mqtrio.hooks.events import DroppedEvent as DroppedEvent
    from mqtrio.hooks.events import PluginFailedEvent as PluginFailedEvent
    from mqtrio.hooks.events import PublishedEvent as PublishedEvent
    from mqtrio.hooks.events import PublishEvent as PublishEvent
    from mqtrio.hooks.events import RetainedChangedEvent as RetainedChangedEvent
    from mqtrio.hooks.events import SessionEndedEvent as SessionEndedEvent
    from mqtrio.hooks.events import SessionOpenedEvent as SessionOpenedEvent
    from mqtrio.hooks.events import SubscribedEvent as SubscribedEvent
    from mqtrio.hooks.events import SubscribeEvent as SubscribeEvent
    from mqtrio.hooks.events import UnsubscribedEvent as UnsubscribedEvent
    from mqtrio.hooks.explanation import Explanation as Explanation
    from mqtrio.hooks.explanation import HookDecision as HookDecision
    from mqtrio.hooks.explanation import PluginAnswer as PluginAnswer
    from mqtrio.hooks.layers import Layer as Layer
    from mqtrio.hooks.layers import LayerFactory as LayerFactory
    from mqtrio.hooks.layers import LayerProvider as LayerProvider
    from mqtrio.hooks.peer import HttpFacts as HttpFacts
    from mqtrio.hooks.peer import PeerCertificate as PeerCertificate
    from mqtrio.hooks.peer import PeerFacts as PeerFacts
    from mqtrio.hooks.peer import TlsFacts as TlsFacts
    from mqtrio.hooks.plugin import DeliveryFilter as DeliveryFilter
    from mqtrio.hooks.plugin import Plugin as Plugin
    from mqtrio.hooks.provide_events import CheckSettingsEvent as CheckSettingsEvent
    from mqtrio.hooks.provide_events import CommandsEvent as CommandsEvent
    from mqtrio.hooks.provide_events import HookspecsEvent as HookspecsEvent
    from mqtrio.hooks.provide_events import LayersEvent as LayersEvent
    from mqtrio.hooks.provide_events import OpenStoreEvent as OpenStoreEvent
    from mqtrio.hooks.provide_events import ReconfigureEvent as ReconfigureEvent
    from mqtrio.hooks.provide_events import RunEvent as RunEvent
    from mqtrio.hooks.provide_events import StartEvent as StartEvent
    from mqtrio.hooks.provide_events import StopEvent as StopEvent
    from mqtrio.hooks.specs import hookimpl as hookimpl
    from mqtrio.hooks.specs import hookspec as hookspec
    from mqtrio.info import BrokerStatistics as BrokerStatistics
    from mqtrio.info import ClientInfo as ClientInfo
    from mqtrio.info import PublishResult as PublishResult
    from mqtrio.info import SessionInfo as SessionInfo
    from mqtrio.net.addresses import BoundAddress as BoundAddress
    from mqtrio.opening import open_broker as open_broker
    from mqtrio.opening import serve_broker as serve_broker
    from mqtrio.reasons import ReasonCode as ReasonCode
    from mqtrio.settings import Limits as Limits
    from mqtrio.settings import Listener as Listener
    from mqtrio.settings import Log as Log
    from mqtrio.settings import SessionRules as SessionRules
    from mqtrio.settings import Settings as Settings
    from mqtrio.state.filters import FilterMap as FilterMap
    from mqtrio.state.topics import check_topic as check_topic
    from mqtrio.state.topics import check_topic_filter as check_topic_filter
    from mqtrio.state.topics import filter_covers as filter_covers
    from mqtrio.state.topics import filters_overlap as filters_overlap
    from mqtrio.state.topics import split_shared as split_shared
    from mqtrio.state.topics import topic_matches as topic_matches
    from mqtrio.store.changes import Change as Change
    from mqtrio.store.changes import MessagePut as MessagePut
    from mqtrio.store.changes import MessageRemoved as MessageRemoved
    from mqtrio.store.changes import QueuedPut as QueuedPut
    from mqtrio.store.changes import QueuedReleased as QueuedReleased
    from mqtrio.store.changes import QueuedRemoved as QueuedRemoved
    from mqtrio.store.changes import QueuedSent as QueuedSent
    from mqtrio.store.changes import ReceivedPut as ReceivedPut
    from mqtrio.store.changes import ReceivedRemoved as ReceivedRemoved
    from mqtrio.store.changes import RetainedPut as RetainedPut
    from mqtrio.store.changes import RetainedRemoved as RetainedRemoved
    from mqtrio.store.changes import SessionClosed as SessionClosed
    from mqtrio.store.changes import SessionPut as SessionPut
    from mqtrio.store.changes import SessionRemoved as SessionRemoved
    from mqtrio.store.changes import SessionSetAside as SessionSetAside
    from mqtrio.store.changes import SubscriptionPut as SubscriptionPut
    from mqtrio.store.changes import SubscriptionRemoved as SubscriptionRemoved
    from mqtrio.store.changes import WillPut as WillPut
    from mqtrio.store.changes import WillRemoved as WillRemoved
    from mqtrio.store.protocol import Loaded as Loaded
    from mqtrio.store.protocol import LoadedSession as LoadedSession
    from mqtrio.store.protocol import QueuedRow as QueuedRow
    from mqtrio.store.protocol import Store as Store
    from mqtrio.wire.packets import PublishProperties as PublishProperties
    from mqtrio.wire.packets import Will as Will

__version__ = "0.1.0"

# Module -> the public names that it has.
_PUBLIC = {
    "broker": "Broker",
    "config": "Configuration PluginSpec load_config read_settings",
    "engine.subscriber": "ReceivedMessage Subscriber",
    "errors": "BrokerStopped ConfigurationError MqtrioError PluginError PluginFailed ProtocolError "
    "RefusedError StoreError StoreFull",
    "fields": "required_setting setting",
    "hooks.answers": "Allow Challenge ClientLimits Close ConnectionProperties Deny Drop "
    "Permissions Reject Throttle",
    "hooks.calls": "CallStatistics",
    "hooks.client": "ClientFacts ConnectionSlot MessageSlot",
    "hooks.credentials": "PeerCredentials",
    "hooks.events": "AcceptEvent AcknowledgedEvent AdmitEvent AuthenticateEvent ChangedMessage "
    "ClientConnectedEvent ClientDisconnectedEvent ConnectionRefusedEvent "
    "DeliveredEvent DeliveryEvent DroppedEvent PluginFailedEvent PublishedEvent "
    "PublishEvent RetainedChangedEvent SessionEndedEvent SessionOpenedEvent "
    "SubscribedEvent SubscribeEvent UnsubscribedEvent",
    "hooks.explanation": "Explanation HookDecision PluginAnswer",
    "hooks.layers": "Layer LayerFactory LayerProvider",
    "hooks.peer": "HttpFacts PeerCertificate PeerFacts TlsFacts",
    "hooks.plugin": "DeliveryFilter Plugin",
    "hooks.provide_events": "CheckSettingsEvent CommandsEvent HookspecsEvent LayersEvent "
    "OpenStoreEvent ReconfigureEvent RunEvent StartEvent StopEvent",
    "hooks.specs": "hookimpl hookspec",
    "info": "BrokerStatistics ClientInfo PublishResult SessionInfo",
    "opening": "open_broker serve_broker",
    "net.addresses": "BoundAddress",
    "reasons": "ReasonCode",
    "settings": "Limits Listener Log SessionRules Settings",
    "state.filters": "FilterMap",
    "state.topics": "check_topic check_topic_filter filter_covers filters_overlap split_shared "
    "topic_matches",
    "store.changes": "Change MessagePut MessageRemoved QueuedPut QueuedReleased QueuedRemoved "
    "QueuedSent ReceivedPut ReceivedRemoved RetainedPut RetainedRemoved SessionClosed SessionPut "
    "SessionRemoved SessionSetAside SubscriptionPut SubscriptionRemoved WillPut WillRemoved",
    "store.protocol": "Loaded LoadedSession QueuedRow Store",
    "wire.packets": "PublishProperties Will",
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - the table above, for `from mqtrio import *`


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'mqtrio' has no attribute {name!r}")
    return getattr(import_module(f"mqtrio.{module}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
