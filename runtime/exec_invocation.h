// ExecInvocation: one run of a program: the body on its stdin or as its last argument, its stdout
// as the answer, its end as the outcome. stdout is held until the end or 64 KiB, whichever comes
// first, even while the body is still coming in; after that the answer streams with status 200.
// The instance's end is authoritative: what is in the pipe then is the rest, whoever else still
// holds the pipe. Loop thread; owns its ends of stdin and stdout.
// A time-out answers at once; the program gets SIGTERM, and SIGKILL after the grace.
// Source: docs/api.md "What an exec function sees, and how its reply is made".
#pragma once

#include <memory>
#include <string>

#include "runtime/call.h"
#include "runtime/pipe_io.h"

namespace pulga {

// One argument may have 128 KiB with its terminating zero (the kernel's MAX_ARG_STRLEN).
inline constexpr size_t kMaxArgumentBytes = 128 * 1024 - 1;

class ExecInvocation final : public Call {
 public:
  using Call::Call;
  ~ExecInvocation() override;
  // Joins `pool`, at once or when the argument is complete.
  void Begin(Pool& target);

  size_t Write(std::string_view bytes) override;
  void EndBody() override;
  ReadResult Read(char* buffer, size_t capacity) override;
  std::optional<std::string_view> WholeBody() const override;

  void OnInstance(Instance& instance, StartKind start) override;
  void OnInstanceExit(Instance& instance, const InstanceExit& exit,
                      const SlotTimes& times) override;
  bool Movable() const override { return body_sent_ == kept_.size(); }
  void OnMoved() override;

 private:
  enum class Body : uint8_t { kOpen, kEnded };
  void CloseIo() override;
  bool IsArgument() const { return version_->spec.input == InputKind::kArgument; }
  // False: over the limit, and the call is over.
  bool CountBody(size_t more);
  Status Start(Instance& instance);
  void SendBody();
  void NoteSent(std::string_view bytes);
  bool LostBeforeExec();
  void WatchInput();
  void CloseInput();
  void OnOutput();
  void Hold();
  bool CountOutput(size_t more);
  void BeginStreaming();
  ReadResult ReadPipe(char* buffer, size_t capacity);
  bool RestFits();
  void FillReceipt(const SlotTimes& times);

  Body body_ = Body::kOpen;
  uint64_t body_bytes_ = 0;
  uint64_t body_sent_ = 0;
  std::string kept_;     // what was sent, while it may have to be sent again
  std::string pending_;  // body not yet in the pipe, or the argument
  UniqueFd input_;
  bool input_watched_ = false;
  bool input_wanted_ = true;  // until the program, or its end, closes stdin
  bool write_refused_ = false;
  UniqueFd output_;
  bool output_readable_ = false;
  bool output_ended_ = false;
  TimePoint first_output_;
  uint64_t output_bytes_ = 0;
  std::string held_;
  size_t held_read_ = 0;
  bool streaming_ = false;
  bool exited_ = false;
};

}  // namespace pulga
