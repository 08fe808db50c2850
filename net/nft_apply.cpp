#include "net/nft_apply.h"

#include <nftables/libnftables.h>
#include <sys/socket.h>

#include <cstdlib>

#include "base/scope_exit.h"
#include "base/text.h"
#include "net/net_job.h"

namespace pulga {
namespace {

int g_answer_fd = -1;

void SayThatItGaveUp() {
  if (g_answer_fd < 0) return;
  const std::string text = EncodeNetAnswer(LastError("nftables: the library gave up"));
  (void)!send(g_answer_fd, text.data(), text.size(), MSG_NOSIGNAL);
}

}  // namespace

Status ApplyNftRules(const std::string& rules, int answer_fd) {
  g_answer_fd = answer_fd;
  atexit(SayThatItGaveUp);
  const ScopeExit over([] { g_answer_fd = -1; });
  nft_ctx* context = nft_ctx_new(NFT_CTX_DEFAULT);
  if (context == nullptr) return Error{Code::kInternal, 0, "nftables: no context"};
  nft_ctx_buffer_output(context);
  nft_ctx_buffer_error(context);
  const int failed = nft_run_cmd_from_buffer(context, rules.c_str());
  std::string why;
  if (failed != 0) why = nft_ctx_get_error_buffer(context);
  nft_ctx_free(context);
  if (failed == 0) return OkStatus();
  for (char& c : why) {
    if (c == '\n') c = ' ';
  }
  return Error{Code::kUnsupported, 0, "nftables: " + Printable(why, 400)};
}

}  // namespace pulga
