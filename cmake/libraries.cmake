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

# libmicrohttpd's archive wants GnuTLS, which nobody calls without MHD_USE_TLS.
add_library(pulga_no_tls STATIC ${CMAKE_CURRENT_LIST_DIR}/no_tls.c)

pulga_library(sqlite sqlite3 libsqlite3.a m)
pulga_library(microhttpd libmicrohttpd libmicrohttpd.a pulga_no_tls Threads::Threads)
pulga_library(crypto libcrypto libcrypto.a)
pulga_library(zlib zlib libz.a)
pulga_library(zstd libzstd libzstd.a)

# pulga_executable(NAME): how a program of ours is linked.
function(pulga_executable name)
  pulga_target(${name})
  set_target_properties(${name} PROPERTIES PULGA_PROGRAM TRUE)
  if(NOT PULGA_SANITIZE)
    target_link_options(${name} PRIVATE -static-libstdc++ -static-libgcc
                        -Wl,--gc-sections -Wl,-z,now)
  endif()
endfunction()
