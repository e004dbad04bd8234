// SPDX-License-Identifier: MIT
// Macros that headers of others are known to define. Each turns into a syntax error where one of our headers uses the name.
#include <headers_of_others.hpp>

// <windows.h>: function-like, so (std::min)(a, b) is allowed
#undef min
#undef max
#define min(a, b) @min
#define max(a, b) @max

// <windows.h>, <rpcndr.h>
#define near @near
#define far @far
#define small @small
#define interface @interface
#define IN @IN
#define OUT @OUT
#define ERROR @ERROR

// <complex.h>, <sys/sysmacros.h>, <termios.h>, <math.h>, the compiler's own names of the system
#undef I
#undef major
#undef minor
#undef unix
#undef linux
#undef OVERFLOW
#undef UNDERFLOW
#undef DOMAIN
#define I @I
#define major @major
#define minor @minor
#define unix @unix
#define linux @linux
#define OVERFLOW @OVERFLOW
#define UNDERFLOW @UNDERFLOW
#define DOMAIN @DOMAIN

// <X11/X.h> and microcontrollers' headers
#define None @None
#define Bool @Bool
#define Status @Status
#define B1 @B1
#define T1 @T1
#define N @N
#define C @C
#define S @S

// Assertions and logging
#define verify @verify
#define likely @likely
#define unlikely @unlikely
#define LOG @LOG
#define CHECK @CHECK
