// FramesInvocation: one request as frames to the instance's channel, and its reply's frames passed
// back, both streamed, holding at most 64 KiB of the one and 96 KiB of the other. A small answer is
// held until it is whole. Never repeats a request of which something was sent. A head or body that
// is wrong in itself fails this call alone; frames that break the protocol end the instance, and
// this call as BadResponse. Loop thread.
// Source: docs/frames.md.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "runtime/frames_channel.h"
#include "runtime/server_call.h"

namespace pulga {

class FramesInvocation final : public ServerCall, private FramesUser {
 public:
  using ServerCall::ServerCall;
  ~FramesInvocation() override;

  size_t Write(std::string_view bytes) override;
  void EndBody() override;
  ReadResult Read(char* buffer, size_t capacity) override;
  std::optional<std::string_view> WholeBody() const override;

  void OnInstance(Instance& granted, StartKind start) override;
  void OnInstanceExit(Instance& dead, const InstanceExit& exit, const SlotTimes& times) override;
  bool Movable() const override { return !begun_ && !head_told(); }
  void OnMoved() override { ForgetGrant(); }

 private:
  // FramesUser
  void OnReplyHead(std::string_view payload, FrameEnd end) override;
  void OnReplyBody(std::string_view bytes, FrameEnd end) override;
  void OnReplyPause() override;
  void OnRoom() override;
  void OnGivenUp() override;

  void CloseIo() override;
  FramesChannel* channel() const;
  // The request's side
  void Push();
  void TellRoom();
  // The reply's side
  bool Bodiless() const;
  bool CountReply(size_t more);
  void TellHead();
  void Complete();

  uint32_t id_ = 0;      // 0: not open, or over
  bool begun_ = false;   // its head was sent
  std::string pending_;  // body that the channel did not take yet
  bool end_sent_ = false;

  ReplyHead answer_;
  std::string buffer_;  // of the reply's body; from begin_ on not read yet
  size_t begin_ = 0;
  bool head_done_ = false;
  bool whole_ = false;  // all of the body is in the buffer
  bool complete_ = false;
};

}  // namespace pulga
