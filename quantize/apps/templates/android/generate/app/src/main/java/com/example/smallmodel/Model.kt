package com.example.smallmodel

import java.io.ByteArrayOutputStream
import java.io.Closeable
import java.io.File

/** The generator of `folder`, run by llama.cpp; one thread at a time may use it. */
class Model(folder: File) : Closeable {
    private var model = open(folder.listFiles()!!.single { it.extension == "gguf" }.path.toByteArray(), 0)

    /** Answer `text`, then again without showing it; returns the profile as JSON. */
    fun run(text: String, repeats: Int, show: (String) -> Unit): String {
        val answer = ByteArrayOutputStream()
        val listener = object : Listener {
            override fun piece(bytes: ByteArray) {
                answer.write(bytes)
                show(answer.toString("UTF-8"))
            }
        }
        return generate(model, text.toByteArray(), repeats, listener).decodeToString()
    }

    override fun close() {
        free(model)
        model = 0
    }

    /** Takes pieces of the answer, which may end inside a character. */
    interface Listener {
        fun piece(bytes: ByteArray)
    }

    private external fun open(path: ByteArray, threads: Int): Long
    private external fun generate(model: Long, text: ByteArray, repeats: Int, listener: Listener): ByteArray
    private external fun free(model: Long)

    private companion object {
        init {
            System.loadLibrary("model")
        }
    }
}
