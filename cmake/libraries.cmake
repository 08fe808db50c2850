# Third-party libraries: linked from Debian's archives (.a), so that only the parts we call come
# along and nothing else is loaded; docs/linking.md has the sizes and the reasons. Sanitized builds
# and machines without an archive take the shared library.
option(PULGA_STATIC_LIBRARIES "link third-party libraries statically where an archive exists" ON)

# pulga_library(NAME PACKAGE ARCHIVE [LIBS...]): the target pulga::NAME from pkg-config's PACKAGE,
# by ARCHIVE with the libraries LIBS that it needs in turn.
function(pulga_library name package archive)
  pkg_check_modules(PULGA_${name} REQUIRED IMPORTED_TARGET GLOBAL ${package})
  add_library(pulga_lib_${name} INTERFACE)
  add_library(pulga::${name} ALIAS pulga_lib_${name})
  find_library(PULGA_${name}_ARCHIVE ${archive})
  if(PULGA_STATIC_LIBRARIES AND NOT PULGA_SANITIZE AND PULGA_${name}_ARCHIVE)
    target_include_directories(pulga_lib_${name} SYSTEM INTERFACE ${PULGA_${name}_INCLUDE_DIRS})
    target_link_libraries(pulga_lib_${name} INTERFACE ${PULGA_${name}_ARCHIVE} ${ARGN})
  else()
    target_link_libraries(pulga_lib_${name} INTERFACE PkgConfig::PULGA_${name})
  endif()
endfunction()

# What libmicrohttpd's archive refers to: GnuTLS, which nobody calls without MHD_USE_TLS, and the
# clearing of its memory pools.
add_library(pulga_no_tls STATIC ${CMAKE_CURRENT_LIST_DIR}/no_tls.c
                                ${CMAKE_CURRENT_LIST_DIR}/keep_pool.c)

# pulga_unclear_pools(TARGET ARCHIVE): TARGET links a copy of libmicrohttpd's ARCHIVE whose memory
# pools call keep_pool.c instead of memset; ARCHIVE itself when it is not made of the parts we know.
function(pulga_unclear_pools target archive)
  set(directory ${CMAKE_BINARY_DIR}/microhttpd)
  set(made ${directory}/new)
  set(pools libmicrohttpd_la-memorypool.o)
  file(MAKE_DIRECTORY ${made})
  file(COPY_FILE ${archive} ${made}/libmicrohttpd.a)
  foreach(command "${CMAKE_AR};x;libmicrohttpd.a;${pools}"
                  "${CMAKE_OBJCOPY};--redefine-sym;memset=pulga_keep_pool;${pools}"
                  "${CMAKE_AR};r;libmicrohttpd.a;${pools}")
    execute_process(COMMAND ${command} WORKING_DIRECTORY ${made} RESULT_VARIABLE failed)
    if(NOT failed STREQUAL 0)
      message(STATUS "libmicrohttpd clears its pools after each request: ${command}: ${failed}")
      return()
    endif()
  endforeach()
  # A newer one would link all programs again, with each run of cmake.
  file(COPY_FILE ${made}/libmicrohttpd.a ${directory}/libmicrohttpd.a ONLY_IF_DIFFERENT)
  get_target_property(libraries ${target} INTERFACE_LINK_LIBRARIES)
  list(TRANSFORM libraries REPLACE "^${archive}$" "${directory}/libmicrohttpd.a")
  set_property(TARGET ${target} PROPERTY INTERFACE_LINK_LIBRARIES ${libraries})
endfunction()

pulga_library(sqlite sqlite3 libsqlite3.a m)
pulga_library(microhttpd libmicrohttpd libmicrohttpd.a pulga_no_tls Threads::Threads)
if(PULGA_STATIC_LIBRARIES AND NOT PULGA_SANITIZE AND PULGA_microhttpd_ARCHIVE)
  pulga_unclear_pools(pulga_lib_microhttpd ${PULGA_microhttpd_ARCHIVE})
endif()
pulga_library(crypto libcrypto libcrypto.a)
pulga_library(nettle nettle libnettle.a)
pulga_library(crypt libcrypt libcrypt.a)
pulga_library(zlib zlib libz.a)
pulga_library(zstd libzstd libzstd.a)
# What Abseil's time library needs in turn, in this order.
set(absl_parts)
foreach(part time_zone civil_time strings strings_internal base raw_logging_internal int128
             throw_delegate spinlock_wait log_severity)
  find_library(PULGA_absl_${part}_ARCHIVE libabsl_${part}.a)
  list(APPEND absl_parts ${PULGA_absl_${part}_ARCHIVE})
endforeach()
pulga_library(absl_time absl_time libabsl_time.a ${absl_parts})

# pulga_executable(NAME): how a program of ours is linked.
function(pulga_executable name)
  pulga_target(${name})
  set_target_properties(${name} PROPERTIES PULGA_PROGRAM TRUE)
  if(NOT PULGA_SANITIZE)
    target_link_options(${name} PRIVATE -static-libstdc++ -static-libgcc
                        -Wl,--gc-sections -Wl,-z,now)
  endif()
endfunction()

# pulga_gather_code(NAME SCRIPT): the code of one path lies together, as SCRIPT of this folder says.
# Where the program is optimised as a whole only: there linking alone decides about sections.
function(pulga_gather_code name script)
  set(script ${CMAKE_SOURCE_DIR}/cmake/${script})
  if(PULGA_LTO AND NOT PULGA_SANITIZE)
    target_link_options(${name} PRIVATE -ffunction-sections -Wl,-T,${script})
    set_property(TARGET ${name} APPEND PROPERTY LINK_DEPENDS ${script})
  endif()
endfunction()
