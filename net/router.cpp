#include "net/router.h"

#include <algorithm>
#include <cerrno>
#include <span>
#include <string>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"

namespace pulga {
namespace {

constexpr ShareLedger::Limits kMaxPinsAsked = {1024, 512, 256};
constexpr Duration kRefusalsPause = std::chrono::seconds(1);

}  // namespace

Router::Router(EventLoop& loop, const MessageSocket& launcher, HostRoutes routes)
    : loop_(loop),
      launcher_(launcher),
      routes_(std::move(routes)),
      tcp_(loop, policy_, routes_, [this](Ipv4 function) { OnRefused(function); }),
      udp_(loop, policy_, routes_, [this](Ipv4 function) { OnRefused(function); }),
      pin_shares_(kMaxPinsAsked) {}

Router::~Router() {
  loop_.Cancel(refusals_timer_);
  if (addresses_.valid()) loop_.Unwatch(addresses_.get());
  loop_.Unwatch(launcher_.fd());
}

Status Router::Start(RouterSockets sockets, std::string resolv_conf) {
  sockets_ = std::move(sockets);
  resolv_conf_ = std::move(resolv_conf);
  PULGA_RETURN_IF_ERROR(SetNonBlocking(launcher_.fd()));
  PULGA_RETURN_IF_ERROR(loop_.Watch(launcher_.fd(), EPOLLIN, [this](uint32_t) { OnOrder(); }));
  PULGA_ASSIGN_OR_RETURN(addresses_, WatchHostAddresses(loop_, [this] { TellHostAddresses(); }));
  return OkStatus();
}

void Router::OnOrder() {
  while (true) {
    auto message = launcher_.Receive(kMaxOrderBytes);
    if (!message.ok() && message.error().sys_errno == EAGAIN) return;
    auto order = message.ok() ? DecodeOrder(message->bytes) : std::nullopt;
    if (!order) return loop_.Stop();  // the launcher is gone, or makes no sense
    Obey(std::move(*order));
  }
}

void Router::Obey(Admission order) {
  const Ipv4 function{order.order.address};
  switch (order.order.kind) {
    case OrderKind::kSetUp:
      return SetUp(order.order);
    case OrderKind::kAdmit:
      return policy_.Admit({function, order.order.version}, std::move(order.allow));
    case OrderKind::kForget:
      policy_.Forget(function);
      tcp_.Drop(function);
      udp_.Drop(function);
      if (dns_ != nullptr) dns_->Drop(function);
      return;
    case OrderKind::kPinned:
      if (auto asked = pins_.extract(order.order.request)) {
        pin_shares_.Give(asked.mapped().function);
        asked.mapped().done(order.order.ok == 1);
      }
      return;
  }
}

void Router::SetUp(const RouterOrder& order) {
  if (dns_ != nullptr) return;
  const Ipv4Range range{{order.address}, static_cast<uint8_t>(std::min(order.bits, 32U))};
  const auto& ports = order.management_ports;
  policy_.SetUp(range, {std::begin(ports), std::end(ports)});
  DnsStubOptions options;
  options.router = {range.base.value + 1};
  options.resolv_conf = resolv_conf_;
  options.refused = [this](Ipv4 function) { OnRefused(function); };
  dns_ = std::make_unique<DnsStub>(
      loop_, policy_, options,
      [this](const DnsStub::PinRequest& request, std::function<void(bool)> done) {
        AskForPin(request, std::move(done));
      });
  Status serving = tcp_.Serve(std::move(sockets_.tcp_relay));
  if (serving.ok()) {
    serving = udp_.Serve(std::move(sockets_.udp_relay), std::move(sockets_.udp_reply));
  }
  if (serving.ok()) {
    serving = dns_->Serve(std::move(sockets_.dns_udp), std::move(sockets_.dns_tcp));
  }
  if (!serving.ok()) return GiveUp(Prefix("serve", serving.error()));
  TellHostAddresses();
}

void Router::AskForPin(const DnsStub::PinRequest& request, std::function<void(bool)> done) {
  RouterNotice notice;
  notice.kind = NoticeKind::kPin;
  notice.request = next_request_++;
  notice.function = request.function.value;
  notice.entry = request.entry;
  notice.address = request.address.value;
  notice.seconds = request.seconds;
  // A public address of a network the host is part of is not out there.
  const bool far = routes_.Find(request.address) == RouteKind::kFar;
  const Holder holder = policy_.HolderAt(request.function);
  if (!far) return done(false);
  if (!pin_shares_.HasRoom(holder)) {
    OnRefused(request.function);
    return done(false);
  }
  if (!Tell(notice).ok()) return done(false);
  pin_shares_.Take(holder);
  pins_[notice.request] = {holder, std::move(done)};
}

void Router::TellHostAddresses() {
  if (dns_ == nullptr) return;  // not serving yet
  RouterNotice notice;
  notice.kind = NoticeKind::kHostAddresses;
  const auto addresses = HostAddresses();
  if (!addresses.ok()) return GiveUp(addresses.error());
  if (addresses->size() > kMaxHostAddresses) {
    return GiveUp(Error{Code::kUnsupported, E2BIG,
                        "the host has " + std::to_string(addresses->size()) +
                            " addresses, and outbound network can close at most " +
                            std::to_string(kMaxHostAddresses)});
  }
  for (const Ipv4 address : *addresses) notice.addresses[notice.count++] = address.value;
  const Status told = Tell(notice);
  if (!told.ok()) GiveUp(Prefix("tell the host's addresses", told.error()));
}

// Refusals come by the thousand: they are told as numbers, now and then.
void Router::OnRefused(Ipv4 function) {
  ++refusals_[function];
  if (refusals_timer_ == 0)
    refusals_timer_ = loop_.CallAfter(kRefusalsPause, [this] { TellRefused(); });
}

void Router::TellRefused() {
  refusals_timer_ = 0;
  for (const auto& [function, count] : std::exchange(refusals_, {})) {
    RouterNotice notice;
    notice.kind = NoticeKind::kRefused;
    notice.function = function.value;
    notice.refused = count;
    (void)Tell(notice).ok();  // the next ones are told, then
  }
}

Status Router::Tell(const RouterNotice& notice) {
  const std::string bytes = EncodeNotice(notice);
  return launcher_.Send(std::as_bytes(std::span(bytes)));
}

void Router::GiveUp(const Error& why) {
  end_ = why;
  loop_.Stop();
}

}  // namespace pulga
