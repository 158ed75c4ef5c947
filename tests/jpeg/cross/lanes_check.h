// Images seldom reach the ends of int16; this does.
#pragma once

// Compare each operation of this machine's vector lanes with that of lanes_plain.h, on random
// lanes with many extremes among them. Returns the name of one that differs, or null.
const char* wrong_lane_operation();
