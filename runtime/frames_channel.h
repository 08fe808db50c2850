// FramesChannel: the daemon's end of one frames instance's channel. Opens calls on it, keeps to the
// credit the function gives, holds the function to ours, and ends at the first frame that breaks
// the protocol. What it holds for a function that does not read: at most 256 KiB of bodies; with
// 1 MiB of all together it has no room, and its owner begins no more calls. Loop thread; nothing
// blocks. Frames of one turn of the loop leave together, unless a call is alone. A cancelled call
// stays in the table until the function has ended it, so that what was under way is told apart from
// what was never asked for. Source: docs/frames.md, unix(7).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/unique_fd.h"
#include "runtime/buffer_pool.h"
#include "runtime/frames_wire.h"
#include "runtime/notifier.h"

namespace pulga {

inline constexpr uint32_t kFramesReplyWindow = 64 * 1024;
// Cancelled calls that the function has not ended, beyond those that may be open at once (their
// clients may all leave together); more, and it never will.
inline constexpr size_t kMostUnansweredCancels = 1024;

// A call on the channel; told nothing any more after Cancel().
class FramesUser {
 public:
  virtual ~FramesUser() = default;
  virtual void OnReplyHead(std::string_view payload, FrameEnd end) = 0;
  virtual void OnReplyBody(std::string_view bytes, FrameEnd end) = 0;
  virtual void OnReplyPause() = 0;  // a head came, and there is no more to read for now
  virtual void OnRoom() = 0;        // SendBody takes bytes again
  virtual void OnGivenUp() = 0;     // the function cancelled it; the call is closed
};

class FramesChannel final : private FrameSink {
 public:
  enum class End : uint8_t { kClosed, kBroken };  // by the function; by what it said
  struct Events {
    std::function<void()> ready;  // the hello is there
    std::function<void()> room;   // has_room() again
    // No call can go on. Not called from inside Begin, SendBody, Cancel or Grant.
    std::function<void(End, const char* why)> ended;
  };
  // The two ends of a new one; the function's blocks.
  struct Pair {
    UniqueFd ours;
    UniqueFd theirs;
  };
  static Result<Pair> MakePair();

  FramesChannel(EventLoop& loop, Notifier& notifier, BufferPool& buffers);
  ~FramesChannel() override;
  FramesChannel(const FramesChannel&) = delete;
  FramesChannel& operator=(const FramesChannel&) = delete;
  struct Options {
    uint32_t calls = 0;   // how many will be open at once
    Duration patience{};  // with a function that reads nothing while there is no room
  };
  // Says hello.
  Status Open(UniqueFd fd, const Options& options, Events events);
  bool has_room() const { return !full_; }

  // 0: the channel has ended, and nothing of the call has been sent.
  uint32_t Begin(FramesUser& user, std::string_view head, FrameEnd end);
  // Takes a prefix; less than all of it: OnRoom tells. kEnd holds if all was taken.
  size_t SendBody(uint32_t id, std::string_view bytes, FrameEnd end);
  void Cancel(uint32_t id);               // ended ones, and 0, are ignored
  void Grant(uint32_t id, size_t bytes);  // so many of the reply's body were passed on
  // What the function said before it died still counts; from now on it can say nothing more, so
  // that this ends. Then nothing more is told.
  void Drain();
  void Close();

 private:
  struct OpenCall {
    FramesUser* user = nullptr;
    uint32_t id = 0;      // 0: free
    uint32_t credit = 0;  // of the request's body
    uint32_t window = 0;  // what the reply's body may still bring
    uint32_t owed = 0;    // passed on, and not granted again yet
    uint16_t life = 0;
    bool cancelled = false;
    bool replied = false;  // its head came
    bool wants_room = false;
  };
  OpenCall* Find(uint32_t id);
  void Free(OpenCall& call);
  // FrameSink
  const char* OnHello(const FramesHello& hello) override;
  const char* OnHead(uint32_t id, std::string_view payload, FrameEnd end) override;
  const char* OnBody(uint32_t id, std::string_view bytes, FrameEnd end) override;
  const char* OnCredit(uint32_t id, uint32_t bytes) override;
  const char* OnCancel(uint32_t id) override;
  const char* Goes() const { return fd_.valid() ? nullptr : "the channel is closed"; }

  void OnReady(uint32_t events);
  ssize_t Receive(char* buffer);
  enum class Read : uint8_t { kFull, kSome, kNothing, kOver };  // a buffer, less, ...
  Read ReadSome();
  void TellPauses();
  void Fail(End end, const char* why);
  void FailLater(const char* why);  // from inside a call's own doing
  size_t backlog() const { return out_.size() - out_sent_; }
  void Leave(FrameEnd end);  // something was appended
  void FlushLater();
  void Flush();  // tells nobody: calls send from inside what they are told
  void FlushAndTell();
  void NoteBacklog();  // it has grown, or some was sent
  void Send();
  void WatchStall();
  bool HasToTell() const;
  void Watch(uint32_t events);
  void TellRoom();

  EventLoop& loop_;
  Notifier& notifier_;
  BufferPool& buffers_;
  UniqueFd fd_;
  // Descriptors that a function sends along: refused by the kernel (Linux 6.16), or looked for.
  enum class Descriptors : uint8_t { kRefused, kLookedFor } descriptors_ = Descriptors::kLookedFor;
  Duration patience_{};
  Events events_;
  FrameReader reader_;
  uint32_t request_window_ = 0;
  std::vector<OpenCall> calls_;
  std::vector<uint16_t> free_;
  size_t open_ = 0;
  size_t unanswered_ = 0;  // cancelled, and not ended by the function
  size_t most_unanswered_ = kMostUnansweredCancels;
  uint64_t credits_ = 0;         // frames of it that came
  uint64_t credits_earned_ = 0;  // by what was sent to the function
  std::vector<uint32_t> paused_;
  std::string out_;
  size_t out_sent_ = 0;
  bool send_broken_ = false;  // nobody reads; what was said before may still be there
  bool wants_room_ = false;   // some call does
  bool full_ = false;         // no more calls
  size_t told_room_ = 0;      // where TellRoom goes on
  bool told_end_ = false;
  uint32_t watched_ = 0;
  EventLoop::TimerId flush_timer_ = 0;
  EventLoop::TimerId fail_timer_ = 0;
  EventLoop::TimerId stall_timer_ = 0;  // full, and nothing was read since
};

}  // namespace pulga
