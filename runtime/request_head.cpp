#include "runtime/request_head.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "base/text.h"
#include "runtime/frames_wire.h"
#include "runtime/http_response_parser.h"

namespace pulga {
namespace {

// Bytes that would end the request line early are escaped; everything else stays as it was sent.
void AppendTarget(std::string_view raw, std::string* out) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  for (const char c : raw) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 0x20 && byte != 0x7f) {
      *out += c;
    } else {
      *out += '%';
      *out += kHex[byte >> 4];
      *out += kHex[byte & 15];
    }
  }
}

std::string StartTime(std::chrono::system_clock::time_point now) {
  using std::chrono::duration_cast;
  return std::to_string(duration_cast<std::chrono::nanoseconds>(now.time_since_epoch()).count());
}

bool Passes(const std::string& name, const std::string& value) {
  return !IsHopByHop(name) && !EqualsIgnoreCase(name, "expect") && IsHeaderName(name) &&
         IsHeaderValue(value);
}

// Which of the headers we would add are there already.
struct Present {
  bool host = false, call_id = false, start = false, forwarded_for = false, forwarded_host = false;
  std::string_view host_value;

  // False: a second Host, which must not reach the function.
  bool Note(std::string_view name, std::string_view value) {
    if (EqualsIgnoreCase(name, "host")) {
      if (host) return false;
      host = true;
      host_value = value;
    }
    if ((name[0] | 0x20) != 'x') return true;
    call_id |= EqualsIgnoreCase(name, "x-call-id");
    start |= EqualsIgnoreCase(name, "x-start-time");
    forwarded_for |= EqualsIgnoreCase(name, "x-forwarded-for");
    forwarded_host |= EqualsIgnoreCase(name, "x-forwarded-host");
    return true;
  }
};

// Each header of the caller's, then of those that we add each it left out.
template <typename Add, typename AddOurs>
void ForEachHeader(const InvocationRequest& request, std::chrono::system_clock::time_point now,
                   Add add, AddOurs add_ours) {
  Present present;
  for (const auto& [name, value] : request.headers) {
    if (Passes(name, value) && present.Note(name, value)) add(name, value);
  }
  if (!present.host) add_ours("Host", request.function.name);
  if (!present.call_id && !request.call_id.empty()) add_ours("X-Call-Id", request.call_id);
  if (!present.start) add_ours("X-Start-Time", StartTime(now));
  if (!present.forwarded_for && !request.client.empty())
    add_ours("X-Forwarded-For", request.client);
  if (!present.forwarded_host && present.host) add_ours("X-Forwarded-Host", present.host_value);
}

bool BodyExpected(std::string_view method) {
  return method == "POST" || method == "PUT" || method == "PATCH";
}

// "x-call-id" -> "Http_X_Call_Id"; empty when it would not make a decent variable name.
std::string VariableName(std::string_view header) {
  std::string name = "Http_";
  bool first = true;
  for (const char c : header) {
    const bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    const bool digit = c >= '0' && c <= '9';
    if (!letter && !digit && c != '-' && c != '_') return "";
    name += !letter ? (c == '-' ? '_' : c) : static_cast<char>(first ? c & ~0x20 : c | 0x20);
    first = !letter && !digit;
  }
  return name;
}

// Which no header may be taken for.
bool IsOfTheRequestLine(std::string_view name) {
  constexpr std::string_view kNames[] = {"Http_Method", "Http_Path", "Http_Query",
                                         "Http_Content_Length", "Http_Transfer_Encoding"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

std::string WithoutNul(std::string_view text) {
  return std::string(text.substr(0, text.find('\0')));
}

}  // namespace

bool IsRequestVariable(std::string_view entry) {
  return entry.starts_with("Http_") || entry.starts_with("PULGA_CALL_ID=");
}

bool IsIdempotent(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "PUT" ||
         method == "DELETE" || method == "TRACE";
}

std::string BuildRequestHead(const InvocationRequest& request,
                             std::chrono::system_clock::time_point now) {
  std::string head;
  head.reserve(512);
  head += request.method;
  head += ' ';
  AppendTarget(request.path.empty() ? "/" : std::string_view(request.path), &head);
  if (!request.query.empty()) {
    head += '?';
    AppendTarget(request.query, &head);
  }
  head += " HTTP/1.1\r\n";
  const auto add = [&head](std::string_view name, std::string_view value) {
    head.append(name).append(": ").append(value).append("\r\n");
  };
  ForEachHeader(request, now, add, add);
  if (!request.upgrade.empty()) {
    head.append("Connection: Upgrade\r\nUpgrade: ").append(request.upgrade).append("\r\n");
  }
  if (request.content_length) {
    head.append("Content-Length: ").append(std::to_string(*request.content_length)).append("\r\n");
  } else if (request.has_body) {
    head += "Transfer-Encoding: chunked\r\n";
  } else if (BodyExpected(request.method)) {
    head += "Content-Length: 0\r\n";
  }
  head += "\r\n";
  return head;
}

std::string BuildRequestFrame(const InvocationRequest& request,
                              std::chrono::system_clock::time_point now) {
  std::string head;
  head.reserve(512);
  const std::string_view path = request.path.empty() ? "/" : std::string_view(request.path);
  for (const std::string_view part :
       {std::string_view(request.method), path, std::string_view(request.query)}) {
    if (!AppendFrameString(part, &head)) return "";
  }
  const auto add = [&head](std::string_view name, std::string_view value) {
    const size_t before = head.size();
    if (!AppendFrameString(name, &head) || !AppendFrameString(value, &head)) head.resize(before);
  };
  ForEachHeader(request, now, add, add);
  if (request.content_length) add("Content-Length", std::to_string(*request.content_length));
  return head;
}

std::vector<std::string> BuildRequestEnvironment(const InvocationRequest& request,
                                                 std::chrono::system_clock::time_point now) {
  std::vector<std::string> env;
  env.push_back("Http_Method=" + WithoutNul(request.method));
  env.push_back("Http_Path=" + WithoutNul(request.path));
  env.push_back("Http_Query=" + WithoutNul(request.query));
  env.push_back("PULGA_CALL_ID=" + WithoutNul(request.call_id));
  if (request.content_length || !request.has_body) {
    const std::string length = std::to_string(request.content_length.value_or(0));
    env.push_back("Http_Content_Length=" + length);
    env.push_back("Http_ContentLength=" + length);  // as the classic watchdog still has it
  } else {
    env.push_back("Http_Transfer_Encoding=chunked");
  }
  std::map<std::string, std::string> variables;  // repeated headers are joined as a list
  size_t bytes = 0;
  const auto add = [&](std::string_view header, std::string_view value) {
    const std::string name = VariableName(header);
    const size_t cost = name.size() + value.size() + 2;
    if (name.empty() || IsOfTheRequestLine(name)) return;
    if (variables.size() >= kMaxHeaderVariables || bytes + cost > kMaxHeaderVariableBytes) return;
    bytes += cost;
    std::string& known = variables[name];
    known += known.empty() ? std::string(value) : ", " + std::string(value);
  };
  const auto add_ours = [&](std::string_view header, std::string_view value) {
    env.push_back(VariableName(header) + "=" + std::string(value));
  };
  ForEachHeader(request, now, add, add_ours);
  for (const auto& [name, value] : variables) env.push_back(name + "=" + value);
  return env;
}

}  // namespace pulga
